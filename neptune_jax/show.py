"""Shows what a model sees in training: examples before and after augmentation.

    python -m neptune_jax.show --config=configs/cnn.py --config.augment.flip=random

Writes a PNG with one row for each example: the original, then the first epochs of a training.
"""

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.errors import UserError
from neptune_jax.runs import files

CONFIG = cli.define_config()
OUT = flags.DEFINE_string('out', 'augmentation.png', 'The picture to write.')
EXAMPLES = 8
EPOCHS = 6


def main(args: list[str]) -> None:
    import jax
    import numpy as np

    from neptune_jax import experiment as experiments
    from neptune_jax.devices import compiling
    from neptune_jax.reporting import figures

    out = files.expand_user(OUT.value, '--out')
    with exits.interruptible():
        experiment = experiments.create(CONFIG.value)
        examples = experiment.order[0][:EXAMPLES]
        data = experiment.dataset
        batch = {
            'image': data.read_images(examples).astype(np.float32) / 255,
            'label': data.labels[examples],
            'index': examples,
        }
        augment = compiling.jit(experiment.augment)
        key = jax.random.key(experiment.config.seed)
        epochs = [
            jax.device_get(augment(batch, key, np.int32(epoch * experiment.steps_per_epoch), epoch))
            for epoch in np.arange(EPOCHS, dtype=np.int32)
        ]
        figure = figures.augmentation(batch, epochs, data.class_names)
        try:
            figure.savefig(out, dpi=120)
        except (OSError, ValueError) as error:  # ValueError: Matplotlib writes no such kind of file
            raise UserError(f'--out={out} cannot be written: {error}') from error
    print(f'wrote {out}')


if __name__ == '__main__':
    cli.run(main)
