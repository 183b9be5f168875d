"""Two 5x5 convolutions of 6 and 16 channels without padding, a dense layer of 256: a small LeNet.

Reproduces:  the first PyTorch-style network of the reference material.
Command:     python -m neptune_jax.main --config=configs/simple_net.py
Expected:    test accuracy 0.8997 ± 0.0025 over 3 seeds; 4 s an epoch on
             two cores of an Intel Xeon at 2.5 GHz (experiments/four_networks/results)
"""

from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model = ConfigDict(
        {
            'name': 'cnn',
            'features': (6, 16),
            'kernel_size': 5,
            'padding': 'VALID',
            'hidden': (256,),
            'activation': 'relu',
        }
    )
    return config
