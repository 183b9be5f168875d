"""Trains an image classifier.

    python -m neptune_jax.main --config=configs/cnn.py
    python -m neptune_jax.main --config=configs/net.py --config.train.epochs=2 --workdir=runs/try

Any field of the config can be set as in the second line. Started again with the same flags, an
interrupted run continues from its last checkpoint.
"""

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.runs import files

CONFIG = cli.define_config()

WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The run directory; default: runs/NAME for the config file NAME.py.'
)

DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print what would be trained and what a step costs; train and write nothing.'
)


def main(args: list[str]) -> None:
    # Heavy imports wait until the flags are known to be right.
    if DRY_RUN.value:
        from neptune_jax.training.dry_run import dry_run

        with exits.interruptible():
            dry_run(CONFIG.value)
        return
    from neptune_jax.training import loop

    workdir = files.expand_user(WORKDIR.value or f'runs/{cli.config_name()}', '--workdir')
    with exits.interruptible():
        loop.train_and_evaluate(CONFIG.value, workdir)


if __name__ == '__main__':
    cli.run(main)
