"""Trains an image classifier.

    python -m neptune_jax.main --config=configs/cnn.py
    python -m neptune_jax.main --config=configs/net.py --config.train.epochs=2 --workdir=runs/try

Any field of the config file can be set as in the second line; configs/cnn.py explains them all.
Started again with the same flags, an interrupted run goes on from its last checkpoint.
"""

import os

from absl import flags

from neptune_jax import cli

WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The run directory; runs/NAME for the config file NAME.py where it is not set.'
)

DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print what would be trained and what a step costs; train and write nothing.'
)


def main(config):
    # Heavy imports wait until the flags are known to be right.
    if DRY_RUN.value:
        from neptune_jax.dry_run import dry_run

        dry_run(config)
        return
    from neptune_jax import train

    train.train_and_evaluate(config, WORKDIR.value or os.path.join('runs', cli.config_name()))


if __name__ == '__main__':
    cli.run(main)
