"""Worker processes that read and convert many images."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from neptune_jax.errors import UserError

AHEAD = 1024  # items that worker processes may be ahead of their use,
AHEAD_BYTES = 2**28  # and bytes of results, where these are large
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
    # Started anew, not forked: JAX and tfds have threads, which a fork would break.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        ahead = max(1, min(AHEAD, AHEAD_BYTES // nbytes))
        for start in range(0, len(items), ahead):
            try:
                some = items[start : start + ahead]
                yield from pool.map(function, some, chunksize=max(1, ahead // 64))
            except BrokenProcessPool as error:
                raise UserError(
                    f'a process that converts images {start:,} to {start + ahead:,} was killed, '
                    'maybe because memory is short; free some, or set a smaller '
                    '--config.data.clean.max_pixels, and start again'
                ) from error
