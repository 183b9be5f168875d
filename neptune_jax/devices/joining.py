"""Joining the other processes of a training: what the environment says of them, and the wait.

Each process tells the coordination service of JAX, in process 0, that it is there. The call that
does so blocks, cannot be interrupted, and aborts the process in the end. So a thread makes it.
"""

import errno
import os
import re
import socket
import threading
from typing import Any

import jax
from jax._src import distributed  # no public name has the address that JAX has found

from neptune_jax import terminal
from neptune_jax.errors import UserError, one_line

_ADDRESS, _COUNT, _ID = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
_BIND_ADDRESS = 'JAX_COORDINATOR_BIND_ADDRESS'

# Environment variables in which launchers give the number of processes.
COUNTS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', _COUNT)

_PATIENCE = 2.0  # seconds until a line says what is waited for
# Seconds that process 0 waits longer than the others, whom JAX aborts when it ends.
_GRACE = 2.0


def join(wait_seconds: float, heartbeat_seconds: int) -> None:
    """Connects to the other processes. If they are late, a line says whom this process waits for.

    Args:
        wait_seconds: how long to wait for them.
        heartbeat_seconds: without a sign of life after which JAX takes a process for dead.

    Raises:
        UserError: a variable of the environment is malformed, or the others did not come. The
            process has to end by os._exit then: the thread cannot be stopped.
    """
    arguments = _from_environment()
    failures: list[Exception] = []

    def initialize():
        try:
            jax.distributed.initialize(
                heartbeat_timeout_seconds=heartbeat_seconds,
                initialization_timeout=int(wait_seconds) + 60,
                **arguments,
            )
        except Exception as error:  # what the variables of launchers make JAX raise is no list
            failures.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(min(_PATIENCE, wait_seconds))
    if thread.is_alive():
        terminal.line(f'waiting  {_missing()}, up to {wait_seconds:g} s')
        grace = 0 if distributed.global_state.process_id else _GRACE
        thread.join(max(0, wait_seconds - _PATIENCE) + grace)
    if thread.is_alive():
        raise UserError(
            f'gave up after {wait_seconds:g} s of waiting {_missing()}; start all processes, or '
            'wait longer with --config.parallel.wait_seconds'
        )
    if failures:
        raise UserError(
            'parallel.distributed: the processes did not find each other '
            f'({one_line(failures[0], 200)}); start them with SLURM, Open MPI or on Cloud TPU, or '
            f'set {_ADDRESS}, {_COUNT} and {_ID} for each'
        ) from failures[0]


def _from_environment() -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize` that a person has set.

    Raises:
        UserError: a variable is malformed; the message names it.
    """
    _check_address(_ADDRESS, 'the host and the port of process 0, such as host-a:12345')
    _check_address(_BIND_ADDRESS, 'an address of this host and a port, such as [::]:12345')
    devices = os.environ.get('JAX_LOCAL_DEVICE_IDS', '')
    if devices and not re.fullmatch(r'\d+(,\d+)*', devices):
        raise _malformed('JAX_LOCAL_DEVICE_IDS', 'numbers of devices, such as 0,1,2,3')
    if _COUNT not in os.environ:
        return {}
    count = _number(_COUNT, 1, None)
    has_launcher = any(name in os.environ for name in COUNTS if name != _COUNT)
    arguments = {'num_processes': count}
    if _ID in os.environ or count == 1:
        arguments['process_id'] = _number(_ID, 0, count)
    elif not has_launcher:
        raise UserError(
            f'{_COUNT}={count}, but {_ID} is not set; set it for each process, from 0 to '
            f'{count - 1}'
        )
    if _ADDRESS not in os.environ and not has_launcher:
        raise UserError(
            f'{_COUNT}={count}, but {_ADDRESS} is not set; set it to the host and the port of '
            'process 0, such as host-a:12345'
        )
    if count > 1 and arguments.get('process_id') == 0 and _ADDRESS in os.environ:
        _check_port()
    return arguments


def _number(name, low, high):
    """Returns an integer of the environment from `low` on and below `high`."""
    text = os.environ.get(name, '0')
    value = int(text) if re.fullmatch(r'[0-9]{1,9}', text) else -1
    if value < low or (high is not None and value >= high):
        bound = f'a number from {low} on' if high is None else f'a number from {low} to {high - 1}'
        raise _malformed(name, bound)
    return value


def _check_address(name, meaning):
    """Raises UserError unless a variable of the environment is unset or HOST:PORT."""
    text = os.environ.get(name, '[::]:1')
    match = re.fullmatch(r'(\[[\w:.%]+\]|[^\s:/\[\]]+):(\d{1,5})', text)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise _malformed(name, meaning)


def _check_port():
    """Raises UserError if process 0 cannot listen where the others will look for it.

    JAX 0.12 ends with a segmentation fault if the address to bind to is not one of this host.
    """
    try:
        if _BIND_ADDRESS in os.environ:
            host, _, port = os.environ[_BIND_ADDRESS].rpartition(':')
            found = socket.getaddrinfo(host.strip('[]'), int(port), type=socket.SOCK_STREAM)
            for family, *_, address in found:
                socket.create_server(address[:2], family=family).close()
        elif not _problem(f'localhost:{os.environ[_ADDRESS].rpartition(":")[2]}'):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except OSError as error:
        place = os.environ.get(_BIND_ADDRESS, os.environ[_ADDRESS])
        reason = (error.strerror or str(error)).partition(' (')[0]
        raise UserError(
            f'process 0 cannot listen at {place}: {reason}; choose another port in {_ADDRESS}, or '
            f'another {_BIND_ADDRESS}'
        ) from error


def _malformed(name, meaning):
    return UserError(f'{name}={os.environ[name]!r} is malformed; set it to {meaning}')


def _missing():
    """Says whom this process waits for, and where."""
    state = distributed.global_state  # JAX fills it before it connects
    number, address = state.process_id, state.coordinator_address
    if address is None:
        return 'for the launcher to say where the coordinator of the processes is'
    count = state.num_processes
    who = f'process {number} of {count}, numbered from 0'
    if number == 0:
        return f'for {count - 1} other process(es) to connect to {address} (this is {who})'
    return f'for process 0 at {address}{_problem(address)} and all others (this is {who})'


def _problem(address):
    """Says why an address cannot be reached, if it cannot."""
    host, port = address.rsplit(':', 1)
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=1).close()
    except OSError as error:
        return f' ({error.strerror or error})'
    return ''
