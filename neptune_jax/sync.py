"""Sends runs to a tracker: Neptune, TensorBoard or MLflow.

    python -m neptune_jax.sync runs/cnn runs/net             to Neptune, now
    python -m neptune_jax.sync runs/cnn --follow             while it is written
    python -m neptune_jax.sync runs/cnn --to=tensorboard     or mlflow
    python -m neptune_jax.sync --import_offline=.neptune/ --out=runs/

Sent again, a run gets what is new; so this command may be killed at any time and repeated. Nothing
is deleted. --import_offline makes run directories of what the Neptune client has left on the disk
in its modes `offline` and `async`.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from neptune_jax import cli
from neptune_jax.errors import UserError
from neptune_jax.tracking import sinks

TO = flags.DEFINE_enum('to', 'neptune', list(sinks.SINKS), 'The tracker.')
FOLLOW = flags.DEFINE_bool('follow', False, 'Go on until the run is over.')
IMPORT_OFFLINE = flags.DEFINE_string('import_offline', None, 'A .neptune folder, or a queue in it.')
OUT = flags.DEFINE_string('out', 'runs', 'The folder for imported runs.')


def main(args: list[str]) -> None:
    if IMPORT_OFFLINE.value:
        _import(IMPORT_OFFLINE.value, OUT.value)
        return
    if not args:
        raise UserError('no run directory given; try: python -m neptune_jax.sync runs/cnn')
    if FOLLOW.value and len(args) > 1:
        sys.exit(_follow_each(args, TO.value))
    from neptune_jax.tracking import replay

    sys.exit(replay.send(args, TO.value, FOLLOW.value))


def _import(source: str, out: str) -> None:
    from neptune_jax.tracking import offline, replay

    for workdir in offline.import_offline(source, out):
        print(f'imported {workdir}; to send it: {replay.command(workdir)}')


def _follow_each(workdirs: Sequence[str], to: str) -> int:
    """Follows several runs, each in a process of its own, so that none waits for another."""
    command = [sys.executable, '-m', 'neptune_jax.sync', f'--to={to}', '--follow']
    env = os.environ | {'TTY_COMPATIBLE': '0'}  # several progress bars cannot share a terminal
    processes = [subprocess.Popen([*command, workdir], env=env) for workdir in workdirs]
    return max(process.wait() for process in processes)


if __name__ == '__main__':
    try:
        cli.run(main, positional='RUN_DIR...')
    except SystemExit as end:
        # An orderly exit would wait for the client's threads, for minutes if the server is gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)
