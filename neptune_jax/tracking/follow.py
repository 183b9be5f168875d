"""The process that sends a run to Neptune while it trains. The training never depends on it."""

import contextlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from neptune_jax import terminal
from neptune_jax.devices.preemption import Preemption
from neptune_jax.errors import Preempted
from neptune_jax.tracking import replay


@contextlib.contextmanager
def tracked(config: ConfigDict, workdir: Path, preemption: Preemption) -> Iterator[None]:
    """Sends a run to Neptune inside the context, and for a limited time after it.

    A process of its own sends. Whatever happens to it or to the server, this process continues. If
    something was not sent in time, a printed command sends it later.

    Args:
        config: the group `neptune` of a config.
        workdir: the run directory. Leave the context only when nobody writes it any more: the
            process sends until then.
        preemption: ends the wait for the process when a signal arrives.
    """
    is_online = config.mode == 'online' or (
        config.mode == 'auto' and os.environ.get('NEPTUNE_API_TOKEN')
    )
    if not is_online:
        if config.mode != 'disabled':
            terminal.line(f'neptune  offline; to send the records: {replay.command(workdir)}')
        yield
        return
    log = workdir / 'sync/neptune.log'
    try:
        process = _start(workdir, log)
    except OSError as error:
        terminal.line(f'neptune  offline ({error}); to send the records: {replay.command(workdir)}')
        yield
        return
    terminal.line(f'neptune  online: process {process.pid} sends the records; its log is {log}')
    try:
        yield
    except Preempted:
        terminal.line(f'neptune  process {process.pid} goes on sending')
        process.returncode = 0  # or Popen would warn that the process has not ended
        raise
    except BaseException:
        _finish(process, log, config.final_wait_seconds, preemption)
        raise
    _finish(process, log, config.final_wait_seconds, preemption)


def _start(workdir, log):
    log.parent.mkdir(exist_ok=True)
    with log.open('a') as file:
        return subprocess.Popen(
            [sys.executable, '-m', 'neptune_jax.sync', str(workdir), '--follow'],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C reaches the training alone
        )


def _finish(process, log, seconds, preemption):
    """Waits until the process ends, kills it after `seconds`, and prints how far it came."""
    try:
        with preemption.allowed():
            status = process.wait(seconds)
    except (subprocess.TimeoutExpired, Preempted):
        process.kill()
        status = process.wait()
    lines = []
    with contextlib.suppress(OSError):
        lines = log.read_text(errors='replace').splitlines()
    if status in (0, 2) and lines:
        terminal.line(f'neptune  {lines[-1]}')
    else:
        terminal.line(f'neptune  not all is sent; to go on: {replay.command(log.parents[1])}')


def captured(config: ConfigDict, workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Writes the artifacts that the config asks for; they are sent like all others.

    These are the source code, the uncommitted changes, and what is printed inside the context.

    Args:
        config: the group `neptune` of a config.
        workdir: the run directory.
    """
    artifacts = workdir / 'artifacts'
    package = Path(__file__).parents[1]
    if config.capture_source:
        with zipfile.ZipFile(artifacts / 'source.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(package.rglob('*.py')):
                archive.write(path, path.relative_to(package.parent))
    if config.capture_git_diff:
        command = ('git', '-C', str(package), 'diff', 'HEAD')
        with (artifacts / 'git.diff').open('w') as file, contextlib.suppress(OSError):
            subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL)
    if config.capture_stdout:
        return terminal.copied_to(artifacts / 'stdout.txt')
    return contextlib.nullcontext()
