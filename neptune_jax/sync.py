"""Sends runs to a tracker: Neptune, TensorBoard, MLflow, or one of your own.

    python -m neptune_jax.sync runs/cnn runs/net             to Neptune
    python -m neptune_jax.sync runs/cnn --follow             while it trains
    python -m neptune_jax.sync runs/cnn --to=tensorboard     to TensorBoard
    python -m neptune_jax.sync --import_offline=.neptune/ --out=runs/

A run that was sent before gets what is new, so this command may be killed at any time and repeated.
Nothing is deleted. --import_offline makes run directories of the files that the Neptune client has
left on the disk in its modes `offline` and `async`.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.errors import UserError, choose_or_import
from neptune_jax.runs import files
from neptune_jax.tracking import replay, sinks
from neptune_jax.tracking.offline import importing

TO = flags.DEFINE_string(
    'to', 'neptune', f"The tracker: {', '.join(sinks.SINKS)}, or 'package.module:open_sink'."
)
FOLLOW = flags.DEFINE_bool('follow', False, 'Continue until the run ends.')
IMPORT_OFFLINE = flags.DEFINE_string('import_offline', None, 'A .neptune folder, or a queue in it.')
OUT = flags.DEFINE_string('out', 'runs', 'The folder for imported runs.')


def main(workdirs: list[str]) -> None:
    """Sends run directories, or imports them; exits with status 2 if something was not sent."""
    with exits.interruptible():
        if IMPORT_OFFLINE.value:
            source = files.expand_user(IMPORT_OFFLINE.value, '--import_offline')
            out = files.expand_user(OUT.value, '--out')
            for workdir in importing.import_offline(source, out):
                print(f'imported {workdir}; to send it: {replay.command(workdir)}')
            return
        if not workdirs:
            raise UserError('no run directory given; try: python -m neptune_jax.sync runs/cnn')
        choose_or_import(sinks.SINKS, TO.value, '--to')  # refuses an unknown tracker
        workdirs = [files.expand_user(workdir, 'RUN_DIR') for workdir in workdirs]
        if FOLLOW.value and len(workdirs) > 1:
            sys.exit(_follow_each(workdirs, TO.value))
        sys.exit(replay.send(workdirs, TO.value, FOLLOW.value))


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
        # A normal exit waits for the threads of a tracker's client, for minutes if the server is
        # gone.
        exits.at_once(int(end.code or 0))
