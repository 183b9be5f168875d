"""How batches get to the devices: from their own memory, from the host's, or streamed from files.

All three take the same order of examples and end in the same batch: `image` uint8[B, H, W, C],
`label` int32[B], `index` int32[B] (the example's number) and `mask` bool[B] (False for padding).
"""

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neptune_jax.data.batches import share
from neptune_jax.data.dataset import Dataset
from neptune_jax.devices.drivers import Parallel

AHEAD = 4  # batches read before they are needed


class Feed(NamedTuple):
    """A way to get batches."""

    data: Any  # arrays that lie on every device for the whole run
    batches: Callable  # (order, start, stop, workers) -> iterator of items, placed on the devices
    empty: Callable  # (batch size, steps of a call) -> an item of zeros, placed: to compile for
    unpack: Callable  # (data, item) -> batch; traced


def create(dataset: Dataset, parallel: Parallel) -> Feed:
    """Returns the Feed for the mode of a data set.

    In mode 'stream' the `workers` of its batches are processes that read files. They take seconds
    to start, which is worth it for a training; an evaluation reads in a thread, with 0 workers.
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

    if not flags.FLAGS.is_parsed():  # Grain asks for its own flags, also outside of absl's programs
        flags.FLAGS.mark_as_parsed()
    reader = Memory(dataset.images, dataset.labels)
    if dataset.mode == 'stream':
        reader = dataset.source.reader()

    def shard(item):
        return jax.tree.map(parallel.shard, item)

    def batches(order, start, stop, workers=0):
        source = grain.MapDataset.source(_Batches(reader, order, start, stop))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
        stream = source.to_iter_dataset(options)
        if dataset.mode == 'stream' and workers:
            _quieten_resource_tracker()
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
            )
        with contextlib.closing(iter(stream)) as items:  # ends the workers, also when left early
            for item in items:
                yield shard(item)

    def empty(batch_size, count=1):
        del count  # build refuses more than one
        indices = _share(np.zeros(batch_size, np.int32))
        image = np.zeros((len(indices), *dataset.image_shape), np.uint8)
        return shard({'image': image, 'label': indices, 'index': indices})

    def unpack(data, item):
        del data
        return item | {'mask': item['index'] >= 0}

    return Feed(data={}, batches=batches, empty=empty, unpack=unpack)


def _quieten_resource_tracker():
    """Keeps Python's resource tracker, a process that workers start, from warning at the end.

    Workers that are ended leave shared memory of Grain's behind. The tracker frees it.
    """
    option = 'ignore:resource_tracker'
    if option not in sys.warnoptions:
        sys.warnoptions.append(option)


def _share(indices):
    return share(indices, jax.process_index(), jax.process_count())


class Memory(NamedTuple):
    """Reads examples from arrays, as `sources.Reader` does from files."""

    images: np.ndarray
    labels: np.ndarray

    def read(self, indices):
        return self.images[indices], self.labels[indices]


class _Batches:
    """The batches of an order as a random-access source: one element is a whole batch.

    Grain's cost is one an element: with batches as elements it does not count.
    """

    def __init__(self, reader, order, start, stop):
        self._reader, self._order, self._start, self._stop = reader, order, start, stop
        # Now: a worker process, which gets a copy of this, is none of JAX's.
        self._process, self._processes = jax.process_index(), jax.process_count()

    def __setstate__(self, state):
        self.__dict__ |= state
        if multiprocessing.parent_process():  # Ctrl-C is for the trainer, which ends its workers
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __len__(self):
        return self._stop - self._start

    def __getitem__(self, number):
        batch = self._order[self._start + number]
        indices = share(batch, self._process, self._processes)
        images, labels = self._reader.read(np.maximum(indices, 0))
        return {'image': images, 'label': labels, 'index': indices}
