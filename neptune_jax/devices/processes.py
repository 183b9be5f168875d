"""Several processes, on one host or many, as one program: joining, agreeing, ending together."""

import contextlib
import os
import selectors
import socket
import struct
import sys
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

from neptune_jax.errors import PREEMPTED_STATUS, Preempted, UserError

# How many processes a launcher has started, where it tells.
_COUNTS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'JAX_NUM_PROCESSES')
_DEAD_AFTER = 40  # seconds without a sign of life from a host, where its sockets do not tell


@contextlib.contextmanager
def joined(distributed):
    """Makes this process one of several for as long as the context lasts, if it was so started.

    That is so where `distributed` is True, or where the environment is that of several processes
    under SLURM, Open MPI or Cloud TPU, or names JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. Only process 0 prints from then on. When a process dies, all others end with
    one line.

    Raises:
        UserError: the other processes cannot be found.
    """
    if not (distributed or _several()):
        yield
        return
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    # A process that ends early is told of by `_watch`; JAX would abort the others with a stack.
    jax.config.update('jax_enable_recoverability', True)
    try:
        arguments = {}
        if 'JAX_NUM_PROCESSES' in os.environ:
            arguments['num_processes'] = int(os.environ['JAX_NUM_PROCESSES'])
            arguments['process_id'] = int(os.environ.get('JAX_PROCESS_ID', '0'))
        jax.distributed.initialize(heartbeat_timeout_seconds=_DEAD_AFTER, **arguments)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'parallel.distributed: the processes did not find each other ({_one_line(error)}); '
            'start them with SLURM, Open MPI or on Cloud TPU, or set JAX_COORDINATOR_ADDRESS, '
            'JAX_NUM_PROCESSES and JAX_PROCESS_ID for each'
        ) from error
    if jax.process_index():
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 - for the rest of the process
    try:
        connections, over = _connect(), threading.Event()
    except OSError as error:
        raise UserError(
            f'process {jax.process_index()} and process 0 cannot reach each other over TCP: {error}'
        ) from error
    watch = threading.Thread(target=_watch, args=(connections, over), daemon=True)
    watch.start()
    try:
        yield
    except Preempted:
        _leave(connections, watch)
        raise
    except BaseException:
        over.set()
        if jax.process_index():
            jax.distributed.shutdown()  # while process 0 is there to hear it
        for connection in connections.values():
            connection.shutdown(socket.SHUT_RDWR)  # without a goodbye
        raise
    _leave(connections, watch)


def _several():
    counts = (os.environ.get(name, '1') for name in _COUNTS)
    return any(count != '1' for count in counts) or ',' in os.environ.get(
        'TPU_WORKER_HOSTNAMES', ''
    )


def _one_line(error):
    return ' '.join(str(error).split())[:200]


def broadcast(tree):
    """Returns process 0's pytree of arrays to all; the others give one of the same shapes.

    As bytes: the sum by which it is done would lose the sign of zeros.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    flat = [np.frombuffer(leaf.tobytes(), np.uint8) for leaf in leaves]
    flat = multihost_utils.broadcast_one_to_all(flat)
    return jax.tree.unflatten(
        structure,
        [
            np.frombuffer(np.asarray(data).tobytes(), leaf.dtype).reshape(leaf.shape)
            for data, leaf in zip(flat, leaves, strict=True)
        ],
    )


def _connect():
    """Returns connected sockets: process 0's to each other process by its number, theirs to it."""
    address = np.zeros(256, np.uint8)
    if jax.process_index() == 0:
        host = os.environ.get('JAX_COORDINATOR_ADDRESS', socket.gethostname()).rpartition(':')[0]
        server = socket.create_server(('', 0))
        text = f'{host or socket.gethostname()} {server.getsockname()[1]}'.encode()
        address[: len(text)] = np.frombuffer(text, np.uint8)
    host, port = bytes(broadcast(address)).rstrip(b'\0').decode().split()
    if jax.process_index():
        connection = socket.create_connection((host, int(port)), timeout=_DEAD_AFTER)
        connection.sendall(struct.pack('!i', jax.process_index()))
        return {0: _watchable(connection)}
    connections = {}
    server.settimeout(_DEAD_AFTER)
    with server:
        while len(connections) < jax.process_count() - 1:
            connection, _ = server.accept()
            (number,) = struct.unpack('!i', connection.recv(4, socket.MSG_WAITALL))
            connections[number] = _watchable(connection)
    return connections


def _watchable(connection):
    """Makes a connection wait for ever, and end when the other host is gone without a word."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (('TCP_KEEPIDLE', 10), ('TCP_KEEPINTVL', 5), ('TCP_KEEPCNT', 6)):
        if hasattr(socket, name):  # Linux; elsewhere the system's own, longer times hold
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


_GOODBYE = b'.'


def _leave(connections, watch):
    """Ends this process's part in good order; process 0, on which all depend, is the last."""
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.sendall(_GOODBYE)
    if jax.process_index() == 0:
        watch.join()
    jax.distributed.shutdown()
    for connection in connections.values():
        connection.close()


def _watch(connections, over):
    """Waits for the goodbyes and the ends of other processes; ends this one if one dies before."""
    leaving = set()
    with selectors.DefaultSelector() as selector:
        for number, connection in connections.items():
            selector.register(connection, selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select():
                try:
                    received = key.fileobj.recv(1)
                except OSError:
                    received = b''
                if over.is_set():
                    return
                if received == _GOODBYE:
                    leaving.add(key.data)
                elif key.data in leaving:
                    selector.unregister(key.fileobj)
                else:
                    message = (
                        f'error: process {key.data} of {jax.process_count()} has ended early; when '
                        'all are started again, the run goes on from the last checkpoint\n'
                    )
                    os.write(2, message.encode())
                    os._exit(PREEMPTED_STATUS)
