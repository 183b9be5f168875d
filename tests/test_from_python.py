"""The Python code of docs/from_python.md, run like a cell of a notebook: again in one process."""

import os
import re
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from neptune_jax.runs import reader

PAGE = Path(__file__).parents[1] / 'docs/from_python.md'


def code_of(page):
    """Returns the Python code of a page."""
    (code,) = re.findall(r'^```python\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)
    return code


def state_of_process():
    """Returns what a training must leave as it was."""
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return {
        'handlers': [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        'wakeup': wakeup,
        'streams': (sys.stdout, sys.stderr),
        'folder': os.getcwd(),
        'arguments': list(sys.argv),
        'environment': dict(os.environ),
    }


@pytest.fixture
def event_loop_descriptor():
    """A wake-up descriptor as the event loop of a notebook sets it."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    before = signal.set_wakeup_fd(sender)
    yield
    signal.set_wakeup_fd(before)
    os.close(sender)
    os.close(receiver)


def test_the_page_runs_twice_in_one_process(
    monkeypatch, tmp_path, data_dir, standard_promotion, event_loop_descriptor, capsys
):
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    code = code_of(PAGE)
    assert len(list(filter(None, code.splitlines()))) == 10
    before, found = None, []
    threads = set(threading.enumerate())  # other tests may have left some
    for folder in ('first', 'first', 'second'):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        before = before or state_of_process()
        names = {}
        exec(code, names)
        assert names['summary'] == reader.read_summary('runs/two_steps')
        assert names['summary']['status'] == 'finished'
        assert names['probabilities'].shape == (5, 10)
        found.append((names['probabilities'], capsys.readouterr().out))
        assert state_of_process() == before | {'folder': str(tmp_path / folder)}
    (first, trained), (again, shown), (second, trained_too) = found
    assert 'compiled' in trained
    assert 'compiled' in trained_too
    assert 'this run has finished before' in shown
    assert 'compiled' not in shown
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, second)
    assert {thread for thread in threading.enumerate() if not thread.daemon} <= threads
