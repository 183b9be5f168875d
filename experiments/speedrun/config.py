"""The rungs of the speedrun, one config each: Fashion-MNIST to a test accuracy in little time.

Reproduces:  Jordan, '94% on CIFAR-10 in 3.29 seconds on a single GPU' (arXiv:2404.00498) in the
             version with Muon, on Fashion-MNIST.
Command:     python -m experiments.speedrun.run --rung=94 --seeds=50
Expected:    cpu90: test accuracy 0.9033, mean of 5 seeds; median 27.8 s on two cores of an Intel
             Xeon at 2.5 GHz. narrow: 0.8723, one seed. 94, 95 and 96: not run; for a GPU.

The command of every config trains a rung as well, with rows of metrics and checkpoints:

    python -m neptune_jax.main --config=experiments/speedrun/config.py:cpu90

It knows nothing of what is the speedrun's own. There the kernel of the whitening convolution stays
at its random initial values and is not computed from the data, and a test image is classified as
it is, not in several views.
"""

from collections.abc import Sequence
from functools import partial

from ml_collections import ConfigDict

from neptune_jax import defaults
from neptune_jax.errors import choose


def get_config(rung: str = '94') -> ConfigDict:
    """Returns the config of a rung, a key of RUNGS."""
    config = defaults.get_config()
    config.data.val_fraction = 0.0
    config.loss.label_smoothing = 0.2
    config.optim.name = 'experiments.speedrun.optimizer:create'
    config.optim.schedule = 'experiments.speedrun.optimizer:triangle'
    config.optim.learning_rate = 1.0  # a factor of all rates in the options
    choose(RUNGS, rung, 'rung')(config)
    config.eval.batch_size = config.train.batch_size
    return config


def _airbench(
    config: ConfigDict,
    widths: Sequence[int],
    epochs: float,
    depth: int = 2,
    dtype: str = 'bfloat16',
    erase: float = 0.0,
) -> None:
    config.model = ConfigDict(
        {
            'name': 'experiments.speedrun.net:Network',
            'widths': widths,
            'depth': depth,
            'dtype': dtype,
        }
    )
    config.train.epochs = epochs
    config.train.batch_size = 2000
    config.augment.update(flip='alternating', translate=2, erase=erase)
    # Airbench adds up the losses of a batch where this package averages them: its rates of the
    # last layer and of biases are these divided by 2000.
    config.optim.options = ConfigDict(
        {
            'kernel_rate': 0.24,
            'head_rate': 5.2,
            'bias_rate': 106.0,
            'weight_decay': 4e-3,
            'whitening': '3 epochs',
        }
    )


def _cpu90(config: ConfigDict) -> None:
    config.model = ConfigDict(
        {
            'name': 'experiments.speedrun.net:Network',
            'widths': (32, 64),
            'depth': 1,
            'patch': 3,
            'stride': 2,
            'pool': 1,
        }
    )
    config.train.epochs = 2.0
    config.train.batch_size = 250
    config.optim.options = ConfigDict(
        {
            'kernel_rate': 0.15,
            'head_rate': 20.0,
            'bias_rate': 2.5,
            'weight_decay': 5e-4,
            'whitening': '3 epochs',
        }
    )


RUNGS = {
    '94': partial(_airbench, widths=(64, 256, 256), epochs=8.0),
    '95': partial(_airbench, widths=(128, 384, 384), epochs=16.0),
    '96': partial(_airbench, widths=(128, 512, 512), epochs=60.0, depth=3, erase=0.5),
    # The rung 94 at a size that a CPU can train. It shows that the parts work together.
    'narrow': partial(_airbench, widths=(16, 32, 32), epochs=3.0, dtype='float32'),
    'cpu90': _cpu90,
}
