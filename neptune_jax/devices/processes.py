"""Several processes, on one host or many, that train one model together.

JAX's coordination service lets them find each other. When one dies, it ends the others.
"""

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from neptune_jax import exits
from neptune_jax.devices import backend, joining
from neptune_jax.errors import Preempted, UserError

PyTree = Any

_HEARTBEAT_TIMEOUT = 10  # seconds without a heartbeat after which JAX takes a process for dead


@contextlib.contextmanager
def joined(distributed: bool, wait_seconds: float = 300.0) -> Iterator[None]:
    """Makes this process one of several inside the context, if it was started as one of several.

    It was if `distributed` is True, if SLURM, Open MPI or Cloud TPU started several processes, or
    if JAX_NUM_PROCESSES (with JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID) says so. Only process 0
    prints from then on.

    All processes must leave the context normally, or all with Preempted; they wait for each other.
    If one leaves it with another exception, or dies, JAX aborts the others (SIGABRT, status 134).

    Args:
        distributed: whether to join others even if nothing in the environment tells of them.
        wait_seconds: how long to wait for them.

    Raises:
        UserError: the other processes cannot be found.
    """
    if not (distributed or _is_one_of_several()):
        backend.devices()  # before anything else asks for them
        yield
        return
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    try:
        joining.join(wait_seconds, _HEARTBEAT_TIMEOUT)
        backend.devices()
    except BaseException as error:
        _leave_at_once(error)
        raise
    if jax.process_index():
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 - for the rest of the process
    preempted = None
    try:
        _connect_devices()
        try:
            yield
        except Preempted as error:
            preempted = error
        broadcast(np.zeros(1))  # process 0 may still write results; `shutdown` waits 5 minutes only
        jax.distributed.shutdown()
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            # A collective fails when another process dies. In that case JAX aborts this process
            # now, with a status that differs from that of an error.
            time.sleep(2 * _HEARTBEAT_TIMEOUT)
        _leave_at_once(error)
        raise
    if preempted:
        raise preempted


def _leave_at_once(error):
    """Lets the process end without JAX, which would wait for the others; they wait for this one."""
    statuses = {UserError: 2, KeyboardInterrupt: exits.CTRL_C_STATUS}
    atexit.register(exits.at_once, statuses.get(type(error), 1))


def _is_one_of_several():
    counts = (os.environ.get(name, '1') for name in joining.COUNTS)
    return any(count != '1' for count in counts) or ',' in os.environ.get(
        'TPU_WORKER_HOSTNAMES', ''
    )


def _connect_devices():
    """Runs the first collectives, for which gloo lets no process be 30 seconds late.

    Later collectives may be late: they use the same connections.
    """
    jax.pmap(lambda x: jax.lax.psum(x, 'device'), 'device')(np.zeros(jax.local_device_count()))
    broadcast(np.zeros(1))


def broadcast(tree: PyTree) -> PyTree:
    """Returns process 0's pytree of arrays to all; the others give one of the same shapes.

    Sends the arrays as bytes: JAX broadcasts by a sum, which would lose the sign of zeros.
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
