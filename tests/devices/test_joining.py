"""Processes that wait for others: what the environment says of them, and how long they wait."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neptune_jax.devices import joining
from neptune_jax.errors import UserError

ROOT = Path(__file__).parents[2]
ADDRESS, COUNT, ID = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
BIND_ADDRESS, DEVICES = 'JAX_COORDINATOR_BIND_ADDRESS', 'JAX_LOCAL_DEVICE_IDS'


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of process 1 of 2, with changes; None unsets one."""

    def environment(changes):
        for name in (BIND_ADDRESS, DEVICES, *joining.COUNTS):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({ADDRESS: 'host-a:12345', COUNT: '2', ID: '1'} | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return environment


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(
            (ADDRESS, value)
            for value in ('', 'localhost', 'host:port:x', ':', 'host:', ':80', 'host:99999999')
        ),
        *((ADDRESS, value) for value in ('h:0', 'h:-1', '::1:80', 'http://h:80', 'h:8 0', None)),
        *((COUNT, value) for value in ('', 'x', '0', '-2', '2.0', '9' * 30, '２')),
        *((ID, value) for value in ('', 'x', '-1', '2', '1.0', None)),
        (BIND_ADDRESS, 'localhost'),
        (DEVICES, 'a,b'),
    ],
)
def test_a_malformed_variable_is_named_before_anything_waits(environment, name, value):
    environment({name: value})
    began = time.monotonic()
    with pytest.raises(UserError) as error:
        joining.join(300, 10)
    assert name in str(error.value)
    assert '\n' not in str(error.value)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize('address', ['host-a:1', '10.0.0.1:65535', '[::1]:80', 'a_b.c-d:12345'])
def test_what_a_person_sets_reaches_jax(environment, address):
    environment({ADDRESS: address, DEVICES: '0,1'})
    assert joining._from_environment() == {'num_processes': 2, 'process_id': 1}


def test_the_launcher_may_say_what_a_person_leaves_out(environment):
    environment({COUNT: None, ID: None, ADDRESS: None, 'SLURM_STEP_NUM_TASKS': '2'})
    assert joining._from_environment() == {}
    environment({ID: None, 'SLURM_STEP_NUM_TASKS': '2'})
    assert joining._from_environment() == {'num_processes': 2}


def test_a_port_that_is_taken_is_said(environment):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        environment({ADDRESS: f'127.0.0.1:{port}', ID: '0'})
        with pytest.raises(UserError, match=f'listen at 127.0.0.1:{port}: Address already in use'):
            joining.join(300, 10)
        environment({BIND_ADDRESS: f'127.0.0.1:{port}', ID: '0'})
        with pytest.raises(UserError, match=f'listen at 127.0.0.1:{port}: Address already in use'):
            joining.join(300, 10)
    environment({ADDRESS: f'127.0.0.1:{port}', ID: '0'})
    assert joining._from_environment()['process_id'] == 0  # the port is free again
    environment({BIND_ADDRESS: 'nosuch.invalid:80', ID: '0'})
    with pytest.raises(UserError, match=r'cannot listen at nosuch\.invalid:80: '):
        joining.join(300, 10)


WAITING = """
import os
from neptune_jax import cli
from neptune_jax.devices import processes
def main(args):
    with processes.joined(False, float(os.environ['SECONDS'])):
        pass
cli.run(main)
"""


def test_a_process_whose_partners_do_not_come_says_so_and_gives_up():
    """Process 0 without the others, and two that cannot reach process 0; at the same time."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    cases = {
        (0, f'127.0.0.1:{port}'): f'for 1 other process(es) to connect to 127.0.0.1:{port} ',
        (1, f'127.0.0.1:{port + 1}'): f'for process 0 at 127.0.0.1:{port + 1} (Connection refused)',
        (1, 'nosuch.invalid:80'): 'for process 0 at nosuch.invalid:80 (',
    }
    patient = (0, f'127.0.0.1:{port + 2}')  # it says at once whom it waits for, though for an hour
    with contextlib.ExitStack() as stack:
        started = []
        for number, address in [*cases, patient]:
            env = os.environ | {ADDRESS: address, COUNT: '2', ID: str(number)}
            env['SECONDS'] = '3600' if address == patient[1] else '7'
            pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
            process = subprocess.Popen(
                [sys.executable, '-c', WAITING],
                cwd=ROOT,
                env=env | {'JAX_PLATFORMS': 'cpu'},
                **pipes,
            )
            started.append(stack.enter_context(process))
            stack.callback(process.kill)
        lines = [process.stdout.readline() for process in started]
        assert [process.poll() for process in started] == [None] * 4
        assert lines[3].endswith('up to 3600 s\n')
        started.pop().kill()
        outputs = [process.communicate(timeout=60) for process in started]
    for number, (case, expected) in enumerate(cases.items()):
        assert lines[number].startswith(f'waiting  {expected}')
        assert started[number].returncode == 2
        errors = outputs[number][1]
        assert errors.startswith(f'error: gave up after 7 s of waiting {expected}')
        assert f'(this is process {case[0]} of 2, numbered from 0)' in errors
        assert 'parallel.wait_seconds' in errors
        assert errors.count('\n') == 1, errors
