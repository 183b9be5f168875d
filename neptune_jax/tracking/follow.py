"""The process that sends a run to Neptune while it trains: started, waited for, never relied on."""

import contextlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from neptune_jax import terminal
from neptune_jax.errors import Preempted
from neptune_jax.tracking import replay


@contextlib.contextmanager
def tracked(config, workdir, preemption):
    """Sends a run directory to Neptune while the context lasts, and some seconds longer.

    That is the work of another process, which lives and dies on its own. Whatever happens to it or
    to the server, this one goes on; what is not sent in time, one command sends later.

    Args:
        config: the group `neptune` of a config.
        workdir: the run directory. To end last, the context has to end when nobody writes it.
        preemption: devices.preemption.Preemption.
    """
    online = config.mode == 'online' or (
        config.mode == 'auto' and os.environ.get('NEPTUNE_API_TOKEN')
    )
    if not online:
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
    terminal.line(f'neptune  online, by process {process.pid}; its words are in {log}')
    try:
        yield
    except Preempted:
        terminal.line(f'neptune  process {process.pid} goes on sending')
        process.returncode = 0  # as far as this process is concerned: it will not wait
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
            start_new_session=True,  # Ctrl-C is for this process alone
        )


def _finish(process, log, seconds, preemption):
    """Waits for the process and says how far it came; ends it where it takes too long."""
    try:
        with preemption.allowed():
            status = process.wait(seconds)
    except (subprocess.TimeoutExpired, Preempted):
        process.kill()
        status = process.wait()
    words = []
    with contextlib.suppress(OSError):
        words = log.read_text(errors='replace').splitlines()
    if status in (0, 2) and words:
        terminal.line(f'neptune  {words[-1]}')
    else:
        terminal.line(f'neptune  not all is sent; to go on: {replay.command(log.parents[1])}')


def captured(config, workdir):
    """Keeps what the group `neptune` of a config asks for as artifacts, to be sent like others."""
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
