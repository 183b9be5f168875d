"""How the process of a command starts and ends, in processes that import nothing heavy."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from neptune_jax import cli

ROOT = Path(__file__).parents[1]
PREPARE = 'from neptune_jax import exits\nexits.prepare()\n'


def start(body, **options):
    """Starts a process that is prepared as that of a command, and runs `body`."""
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | options
    command = [sys.executable, '-c', PREPARE + body]
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def run(body, **options):
    """Runs such a process to its end; returns its exit status, output and errors."""
    process = start(body, **options)
    output = process.communicate(timeout=60)
    return process.returncode, *output


def in_shell(redirection, body):
    """Runs such a process in a shell that redirects its standard streams."""
    command = ['sh', '-c', f'"$@" {redirection}', 'sh', sys.executable, '-c', PREPARE + body]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


PRINT = """
import os, sys
for i in range(3000):
    print('a line that is long enough to fill what a pipe holds', i)
os.write(1, b'by a library')
print('done', file=sys.stderr)
sys.exit(7)
"""


def test_a_pipe_that_is_closed_ends_nothing():
    process = start(PRINT)
    process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == 'done\n'
    assert process.wait(60) == 7


@pytest.mark.parametrize(
    ('redirection', 'errors'),
    [('>/dev/full', 'done\n'), ('>/dev/full 2>/dev/full', ''), ('>&-', 'done\n')],
)
def test_output_that_cannot_be_written_ends_nothing(redirection, errors):
    result = in_shell(redirection, PRINT)
    assert (result.returncode, result.stdout, result.stderr) == (7, '', errors)


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    body = """
import os, sys
with open(sys.argv[1], 'w') as file:
    os.write(1, b'of a library')
    print('of a library', file=sys.stderr, flush=True)
    file.write(f'{file.fileno()}')
"""
    result = in_shell(f'{tmp_path}/file <&- >&- 2>&-', body)
    assert result.returncode == 0
    assert int((tmp_path / 'file').read_text()) > 2


def test_names_that_the_encoding_lacks_are_printed_somehow():
    body = "print('Höhe 高さ')"
    status, output, errors = run(body, env=os.environ | {'PYTHONIOENCODING': 'ascii'})
    assert (status, output, errors) == (0, 'H\\xf6he \\u9ad8\\u3055\n', '')


INTERRUPTED = """
import atexit, sys, threading, time
atexit.register(lambda: print('temporary files are removed'))
threading.Thread(target=lambda: (time.sleep(0.3), print('threads have ended'))).start()

class Client:
    def __del__(self):
        print('the client is destroyed under its threads')

def compile():
    client = Client()
    client.itself = client  # as JAX's, it is left to the garbage collector
    raise KeyboardInterrupt

try:
    compile()
except KeyboardInterrupt as error:
    exits.end_interrupted(75, error)
"""


def test_an_interrupted_command_cleans_up_but_destroys_nothing():
    status, output, errors = run(INTERRUPTED)
    assert (status, errors) == (75, '')
    assert output == 'threads have ended\ntemporary files are removed\n'


WAIT = "print('ready', flush=True)\ntime.sleep(60)\n"


@pytest.mark.parametrize(
    ('body', 'status', 'output'),
    [
        # While libraries are imported. Some of them catch everything.
        (
            f'import time\ntry:\n    {WAIT.replace(chr(10), chr(10) + "    ")}\nexcept: pass',
            130,
            '',
        ),
        (
            'import time\nwith exits.interruptible():\n    try:\n        '
            f'{WAIT.replace(chr(10), chr(10) + "        ")}\n    except KeyboardInterrupt:\n'
            "        print('removed')\n        raise SystemExit(3)",
            3,
            'removed\n',
        ),
        # Where Python drops an exception, and would print it.
        (
            'import gc, time\ndef callback(*args):\n    gc.callbacks.remove(callback)\n    '
            f'{WAIT.replace(chr(10), chr(10) + "    ")}\ngc.callbacks.append(callback)\n'
            'with exits.interruptible():\n    gc.collect()\n',
            130,
            '',
        ),
    ],
)
def test_ctrl_c_ends_a_command_at_once_or_lets_it_clean_up(body, status, output):
    process = start(body)
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (output, '')
    assert process.returncode == status


def test_each_command_is_prepared_before_it_imports_anything():
    """`python -m` imports the package first; whoever imports it otherwise is left alone."""
    code = 'import signal, neptune_jax; print(signal.getsignal(signal.SIGINT).__name__)'
    command = [sys.executable, '-c', code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == 'default_int_handler\n'
    command = [sys.executable, '-X', 'importtime', '-m', 'neptune_jax.main', '--help']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = re.findall(r'\|\s*([\w.]+)$', result.stderr, re.MULTILINE)
    assert names.index('neptune_jax.exits') < names.index('absl')


def test_ctrl_c_during_a_command_is_a_status_without_a_traceback(capsys, monkeypatch):
    monkeypatch.setattr('neptune_jax.exits._interrupted', [])
    with pytest.raises(SystemExit) as end, cli.reported():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == ''
