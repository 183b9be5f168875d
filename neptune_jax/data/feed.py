"""How batches get to the devices: from device memory, from host memory, or streamed from files.

The same order of examples gives the same batches in all three modes: `image` uint8[B, H, W, C],
`label` int32[B], `index` int32[B] (the examples' numbers) and `mask` bool[B] (False for padding).
"""

import contextlib
import itertools
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neptune_jax.data.batches import EvalOrder, StepGroups, TrainOrder, share
from neptune_jax.data.dataset import Dataset
from neptune_jax.data.given import GivenImages
from neptune_jax.data.sources.source import Reader
from neptune_jax.devices.drivers import Parallel

AHEAD = 4  # batches that are read before they are needed


class Feed(NamedTuple):
    """Gives batches to compiled steps, as items from which a step makes its batch.

    With data in device memory, an item is the numbers of the examples; else it is their images.
    """

    data: Any  # arrays that are on every device during the whole run
    batches: Callable  # (order, start, stop, workers) -> iterator of items, placed on the devices
    empty: Callable  # (batch size, steps of a call) -> an item of zeros, placed; to compile with
    unpack: Callable  # (data, item) -> batch; a pure function, to be traced


def create(dataset: Dataset | GivenImages, parallel: Parallel) -> Feed:
    """Returns the Feed for the mode of a data set.

    In mode 'stream', `workers` of `batches` is a number of processes that read files. They take
    seconds to start: good for a training. With 0 workers, good for an evaluation, a thread reads.
    """
    if dataset.mode == 'device':
        return _from_device(dataset, parallel)
    return _from_host(dataset, parallel)


def _from_device(dataset, parallel):
    def batches(order, start, stop, workers=0):
        del workers
        for step in range(start, stop):
            yield parallel.shard(_share(order[step]))

    def empty(batch_size, count=1):
        shape = batch_size if count == 1 else (batch_size, count)
        return parallel.shard(_share(np.zeros(shape, np.int32)))

    def unpack(data, indices):
        rows = jnp.maximum(indices, 0)
        return {
            'image': data['image'][rows],
            'label': data['label'][rows],
            'index': indices,
            'mask': indices >= 0,
        }

    return Feed(
        data=parallel.replicate({'image': np.asarray(dataset.images), 'label': dataset.labels}),
        batches=batches,
        empty=empty,
        unpack=unpack,
    )


def _from_host(dataset, parallel):
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain reads its flags, which fails if nobody parsed any
        flags.FLAGS.mark_as_parsed()
    reader: Memory | Reader
    if dataset.mode == 'stream':
        reader = dataset.source.reader()
    else:
        reader = Memory(dataset.images, dataset.labels)

    def shard(item):
        return jax.tree.map(parallel.shard, item)

    def batches(order, start, stop, workers=0):
        source = grain.MapDataset.source(_BatchSource(reader, order, start, stop))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
        stream = source.to_iter_dataset(options)
        if dataset.mode == 'stream' and workers:
            _start_resource_tracker()
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
            )
        with contextlib.closing(iter(stream)) as items:  # ends the workers even after an error
            with _ctrl_c_blocked():  # Grain starts its workers now
                first = list(itertools.islice(items, 1))
            for item in itertools.chain(first, items):
                yield shard(item)

    def empty(batch_size, count=1):
        del count  # it is 1: experiment.create refuses more
        indices = _share(np.zeros(batch_size, np.int32))
        image = np.zeros((len(indices), *dataset.image_shape), np.uint8)
        return shard({'image': image, 'label': indices, 'index': indices})

    def unpack(data, item):
        del data
        return item | {'mask': item['index'] >= 0}

    return Feed(data={}, batches=batches, empty=empty, unpack=unpack)


def _start_resource_tracker():
    """Starts Python's resource tracker, which warns of nothing at the end of the program.

    Worker processes that are ended early leave shared memory of Grain behind. The tracker, a
    process that Python would start with the workers, frees it and would warn about it.
    """
    option = 'ignore:resource_tracker'
    if option not in sys.warnoptions:
        sys.warnoptions.append(option)
    resource_tracker.ensure_running()  # here, because it unblocks the signals of its thread


@contextlib.contextmanager
def _ctrl_c_blocked():
    """Threads and processes that are started inside do not get SIGINT, from their first moment on.

    Ctrl-C reaches all processes of a terminal, but the trainer ends its workers. The trainer itself
    gets the signal through its other threads, at once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _share(indices):
    return share(indices, jax.process_index(), jax.process_count())


class Memory(NamedTuple):
    """Reads examples from arrays, as sources.source.Reader does from files."""

    images: np.ndarray  # uint8[N, H, W, C]
    labels: np.ndarray  # int32[N]

    def read(self, examples: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8[n, H, W, C] and labels int32[n] of examples."""
        return self.images[examples], self.labels[examples]


class _BatchSource:
    """A data source for Grain. One of its elements is a whole batch, not an example.

    Grain takes some time for each element; for one element a batch that time does not matter.
    """

    def __init__(
        self,
        reader: Memory | Reader,
        order: TrainOrder | StepGroups | EvalOrder,
        start: int,
        stop: int,
    ) -> None:
        self._reader, self._order, self._start, self._stop = reader, order, start, stop
        # Asked here, because a worker process, which gets a copy of this object, does not know.
        self._process, self._processes = jax.process_index(), jax.process_count()

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        batch = self._order[self._start + number]
        indices = share(batch, self._process, self._processes)
        images, labels = self._reader.read(np.maximum(indices, 0))
        return {'image': images, 'label': labels, 'index': indices}
