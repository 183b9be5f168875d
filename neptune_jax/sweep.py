"""Trains all runs of a sweep: seeds, a grid, the points of a config file, or a search.

    python -m neptune_jax.sweep --config=configs/cnn.py --grid=optim.name=sgd,adam --grid=seed=0:5
    python -m neptune_jax.sweep --config=FILE    (FILE has a function get_sweep())
    python -m neptune_jax.sweep --config=configs/cnn.py --trials=50 --workers=2 \\
        --search=optim.learning_rate=log:1e-4:1 --search=model.activation=relu,gelu

Each trial is a run directory in --out. The same command again does what is missing; any number of
processes and machines may run it. Exit status 1: trials failed; 75: ended early, go on later.
"""

import os
import sys

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.runs import files

ENVIRON = dict(os.environ)  # before this process makes settings of its own

CONFIG = cli.define_config()
GRID = flags.DEFINE_multi_string('grid', [], 'FIELD=VALUE,VALUE or FIELD=FROM:TO.')
SEARCH = flags.DEFINE_multi_string(
    'search', [], 'FIELD=LOW:HIGH, FIELD=log:LOW:HIGH or FIELD=CHOICE,CHOICE.'
)
TRIALS = flags.DEFINE_integer('trials', None, 'Of a search, 20 by default.', lower_bound=1)
OBJECTIVE = flags.DEFINE_string('objective', 'val/accuracy', 'The metric of a search.')
SAMPLER = flags.DEFINE_enum('sampler', 'tpe', ('tpe', 'gp', 'random', 'qmc'), 'Of a search.')
PRUNE = flags.DEFINE_enum('prune', 'none', ('none', 'median', 'asha'), 'Give trials up early.')
OUT = flags.DEFINE_string('out', None, 'The folder of the runs; default: runs/NAME_sweep.')
WORKERS = flags.DEFINE_integer('workers', None, 'Trainings at a time.', lower_bound=1)
TOGETHER = flags.DEFINE_integer(
    'together', 1, 'Trials of other seeds that one program trains.', lower_bound=1
)
SHARD = flags.DEFINE_string('shard', '1/1', 'A part of the trials: 1/n to n/n.')
MAX_HOURS = flags.DEFINE_float('max_hours', None, 'End in good order after that.', lower_bound=0)
RETRIES = flags.DEFINE_integer('retries', 1, 'Starts of a trial that failed.', lower_bound=0)
KEEP = flags.DEFINE_enum('keep', 'all', ('all', 'best', 'last', 'none'), 'Checkpoints kept.')
SEED = flags.DEFINE_integer('seed', 0, 'Of a search.', lower_bound=0)
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Check and list the trials; train and write nothing.')


def main(args: list[str]) -> None:
    """Runs the sweep."""
    from neptune_jax.sweeping import running
    from neptune_jax.sweeping.planning import Request

    request = Request(
        config=CONFIG.value,
        config_file=cli.config_file(),
        config_arguments=cli.config_arguments(),
        points=cli.read_sweep(),
        grid=GRID.value,
        search=SEARCH.value,
        out=files.expand_user(OUT.value or f'runs/{cli.config_name()}_sweep', '--out'),
        environ=ENVIRON,
        trials=TRIALS.value,
        objective=OBJECTIVE.value,
        sampler=SAMPLER.value,
        prune=PRUNE.value,
        seed=SEED.value,
        workers=WORKERS.value,
        together=TOGETHER.value,
        shard=SHARD.value,
        max_hours=MAX_HOURS.value,
        retries=RETRIES.value,
        keep=KEEP.value,
    )
    with exits.interruptible():
        if DRY_RUN.value:
            running.list_trials(request)
        else:
            sys.exit(running.run(request))


if __name__ == '__main__':
    cli.run(main)
