"""Real signals to real processes."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neptune_jax import errors
from neptune_jax.devices import preemption

ROOT = Path(__file__).parents[2]
SCRIPT = """
import time
from neptune_jax import errors
from neptune_jax.devices import preemption
try:
    with preemption.watch() as preempted:
        with preempted.{section}():
            try:
                print('ready', flush=True)
                {body}
            finally:
                print('left', flush=True)
        preempted.check(0)
except errors.Preempted as error:
    print(error, flush=True)
"""
WAIT = 'while True: time.sleep(60)'
UNTIL_REQUESTED = 'preempted.requested.wait()'


@pytest.fixture
def start():
    """Starts a script that waits in a section for signals; returns it when it does."""
    started = []

    def start(section, body):
        command = [sys.executable, '-c', SCRIPT.format(section=section, body=body)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == 'ready\n'
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(('section', 'body'), [('allowed', WAIT), ('deferred', UNTIL_REQUESTED)])
def test_a_signal_ends_a_wait_at_once_and_what_must_not_be_interrupted_after_it(
    start, number, section, body
):
    process = start(section, body)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert output == f'left\n{number.name}\n'
    assert process.returncode == 0


def test_the_second_signal_ends_the_process_at_once(start):
    process = start('deferred', f'{UNTIL_REQUESTED}; print("first", flush=True); time.sleep(999)')
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == 'first\n'
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert process.stdout.read() == ''


def test_a_section_that_is_entered_after_the_signal_is_left_before_it_begins():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.watch() as preempted:
        with preempted.deferred():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(errors.Preempted, match='SIGTERM'), preempted.allowed():
            raise AssertionError('it was entered')
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_in_a_destructor_which_lets_no_exception_out_is_noticed_after_it():
    class Resource:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
            closed.append(self)

    closed = []
    with preemption.watch() as preempted:
        with pytest.raises(errors.Preempted, match='SIGTERM'), preempted.allowed():
            Resource()
            wait()
        assert closed


def test_a_signal_in_a_callback_of_the_garbage_collector_is_noticed_after_it(capsys):
    """JAX has such a callback; Python prints and drops an exception in it."""

    def callback(phase, info):
        if phase == 'start':
            gc.callbacks.remove(callback)
            signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    with (
        pytest.raises(errors.Preempted, match='SIGTERM'),
        preemption.watch() as preempted,
        preempted.allowed(),
    ):
        gc.collect()
        wait()
    assert capsys.readouterr().err == ''


def test_what_was_dropped_does_not_come_back_where_it_must_not_interrupt():
    class Resource:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with preemption.watch() as preempted:
        with preempted.deferred():
            Resource()
            time.sleep(0.3)
            assert not preempted._is_unanswered()  # no more interruptions of system calls
        with pytest.raises(errors.Preempted, match='SIGTERM'):
            preempted.check(1)


def wait():
    """Waits as training code does, in a system call, but not for ever."""
    time.sleep(10)
    raise AssertionError('it was not interrupted')


COMPILING = """
import jax
import jax.numpy as jnp
from neptune_jax import cli, exits
from neptune_jax.devices import preemption

def slow_to_compile(x):
    for _ in range(300):
        x = jnp.sin(x @ x + jnp.sort(x, 0))
    return x

def main(args):
    with {contexts}:
        lowered = jax.jit(slow_to_compile).lower(jnp.zeros((16, 16)))
        print('ready', flush=True)
        lowered.compile()

cli.run(main)
"""


@pytest.mark.parametrize(
    ('contexts', 'number', 'status', 'errors'),
    [
        (
            'preemption.watch() as preempted, preempted.allowed()',
            signal.SIGTERM,
            errors.PREEMPTED_STATUS,
            'ended by SIGTERM; the same command continues from here\n',
        ),
        ('exits.interruptible()', signal.SIGINT, 130, ''),
    ],
)
def test_a_signal_while_xla_compiles_ends_a_command_with_its_status(
    contexts, number, status, errors
):
    """JAX 0.10 compiles in another thread, which crashed: 5 of 5 times in this program."""
    process = subprocess.Popen(
        [sys.executable, '-c', COMPILING.format(contexts=contexts)],
        cwd=ROOT,
        env=os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false', 'XLA_FLAGS': ''},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'ready\n'
    time.sleep(0.3)
    process.send_signal(number)
    assert process.communicate(timeout=60) == ('', errors)
    assert process.returncode == status
