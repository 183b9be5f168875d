"""Trains runs that differ in nothing but their seeds in one program. A sweep starts it.

    python -m neptune_jax.together --config=configs/simple_net.py --run=0:runs/a --run=1:runs/b

Any field of the config but the seed can be set, as in `python -m neptune_jax.main`, which trains a
single run. Started again with the same flags, it continues from the last checkpoints.
"""

import contextlib
from pathlib import Path

from absl import flags

from neptune_jax import cli, exits, terminal
from neptune_jax.errors import UserError
from neptune_jax.runs import files

CONFIG = cli.define_config()

RUN = flags.DEFINE_multi_string(
    'run',
    [],
    'SEED:DIRECTORY of a run; repeat it. SEED: alone keeps the place of a run in the program, so '
    'that the others have the same bits.',
)


def main(args: list[str]) -> None:
    """Trains the runs."""
    runs = [_parse(text) for text in RUN.value]
    directories = [directory for _, directory in runs if directory]
    if not directories:
        raise UserError('no --run=SEED:DIRECTORY given; give one for each run')
    from neptune_jax.training import together

    with contextlib.ExitStack() as stack:
        for directory in directories[1:]:  # the output of this process is the log of the first
            if (Path(directory) / 'trial.json').is_file():
                stack.enter_context(terminal.copied_to(Path(directory) / 'trial.log'))
        with exits.interruptible():
            together.train_and_evaluate(CONFIG.value, runs)


def _parse(text):
    seed, colon, directory = text.partition(':')
    if not (colon and seed.isdecimal()):
        raise UserError(f'--run={text} must be SEED:DIRECTORY, such as --run=0:runs/seed=0')
    return int(seed), files.expand_user(directory, '--run') if directory else None


if __name__ == '__main__':
    cli.run(main)
