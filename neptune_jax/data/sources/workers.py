"""Worker processes that read and convert many images."""

import collections
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from neptune_jax.errors import UserError

AHEAD = 1024  # items that worker processes may be ahead of their use,
AHEAD_BYTES = 2**28  # and bytes of results, where these are large
CHUNK = 16  # items that a process gets at once
IN_PROCESS = 500  # so many items are done sooner than worker processes start


def map_all(function: Callable, items: Sequence, nbytes: int = 1) -> Iterator:
    """Yields `function(item)` for each item, in their order; many of them by worker processes.

    Args:
        function: what to do; it is sent to the processes.
        items: its arguments.
        nbytes: the size of a result.

    Raises:
        UserError: a worker process was killed.
    """
    if len(items) <= IN_PROCESS:
        yield from map(function, items)
        return
    done = 0
    try:
        for result in map_in_processes(function, items, os.cpu_count() or 1, nbytes):
            yield result
            done += 1
    except BrokenProcessPool as error:
        raise UserError(
            f'a process that converts images {done:,} to {done + AHEAD:,} was killed, maybe '
            'because memory is short; free some, or set a smaller '
            '--config.data.clean.max_pixels, and start again'
        ) from error


def map_in_processes(
    function: Callable, items: Iterable, processes: int, nbytes: int = 1
) -> Iterator:
    """Yields `function(item)` for each item, in their order, computed by worker processes.

    The processes are never more than AHEAD items or AHEAD_BYTES of results ahead. They end with
    this process, also if it is killed.

    Args:
        function: what to do; it is sent to the processes.
        items: its arguments.
        processes: how many.
        nbytes: the size of a result.

    Raises:
        BrokenProcessPool: a worker process was killed.
    """
    ahead = max(1, min(AHEAD, AHEAD_BYTES // nbytes))
    size = max(1, min(CHUNK, ahead // (4 * processes)))
    items = iter(items)
    pending: collections.deque[Any] = collections.deque()
    # Started anew, not forked: JAX and tfds have threads, which a fork would break.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(processes, context, _prepare_worker)
    try:
        while chunk := list(itertools.islice(items, size)):
            pending.append(pool.submit(_map_chunk, function, chunk))
            if len(pending) * size >= ahead:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _map_chunk(function, chunk):
    return [function(item) for item in chunk]


def _prepare_worker():
    # Ctrl-C reaches all processes of a terminal; this one ends when its parent closes the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
