"""Programs that use the Neptune client, forked from a process that has imported it.

The import takes a second. Python's fork server does it once for all programs of a test session.
"""

import multiprocessing
import os
import sys
import time
from pathlib import Path

_SECONDS = 60  # after which a program is considered to hang

_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['tests.tracking.preloaded'])


class Program:
    """A program that runs in a process of its own.

    Args:
        folder: the working directory.
        code: Python code, which can use `channel`, a multiprocessing.Connection.
        argv: sys.argv.
        env: all environment variables.
    """

    _started = 0

    def __init__(self, folder, code, argv=(), env=os.environ):
        Program._started += 1
        self._output = Path(folder, f'output-{Program._started}')
        self._errors = Path(folder, f'errors-{Program._started}')
        self.channel, channel = _context.Pipe()
        arguments = (str(folder), code, argv, dict(env), self._output, self._errors, channel)
        self._process = _context.Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid
        channel.close()

    @property
    def status(self):
        """The exit status; minus the number of the signal that has killed it; None if it runs."""
        return self._process.exitcode

    def wait(self, seconds=_SECONDS):
        """Waits for the end; returns the exit status, what was printed, and the errors printed."""
        self._process.join(seconds)
        assert self.status is not None, f'it hangs: {self._output.read_text()}'
        return self.status, self._output.read_text(), self._errors.read_text()

    def receive(self):
        """Returns what the program sends next through its channel."""
        assert self.channel.poll(_SECONDS), 'the program sends nothing'
        try:
            return self.channel.recv()
        except EOFError:
            raise AssertionError(''.join(map(str, self.wait()))) from None

    def kill(self):
        """Kills the program if it still runs."""
        self._process.kill()
        self._process.join()
        self.channel.close()


def start_sync(folder, arguments, env):
    """Starts `python -m neptune_jax.sync`; returns the Program."""
    code = "import runpy; runpy.run_module('neptune_jax.sync', run_name='__main__', alter_sys=True)"
    return Program(folder, code, ['sync', *map(str, arguments)], env)


def _run(folder, code, argv, env, output, errors, channel):
    for path, number in ((output, 1), (errors, 2)):
        with path.open('w') as file:
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()  # reads $TZ
    sys.argv[:] = argv
    exec(code, {'__name__': '__main__', 'channel': channel})
