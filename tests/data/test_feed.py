"""The three ways of a batch to the devices, side by side."""

import multiprocessing
import threading
import time

import jax
import numpy as np
import pytest

from neptune_jax.data import batches, dataset, feed
from neptune_jax.devices import drivers


def batches_of(config, mode, order, start, stop, workers=0):
    config.data.mode = mode
    data = dataset.load(config.data)
    assert data.mode == mode
    assert (data.images is None) == (mode == 'stream')
    config.parallel.num_devices = 1
    devices = drivers.create(config.parallel)
    feeding = feed.create(data, devices)
    items = feeding.batches(order, start, stop, workers)
    return [jax.device_get(feeding.unpack(feeding.data, item)) for item in items]


# Worker processes take seconds to start; only 'stream' has them.
@pytest.mark.parametrize(
    ('mode', 'workers'), [('device', 2), ('host', 2), ('stream', 0), ('stream', 2)]
)
def test_the_same_config_gives_the_same_batches_in_every_mode(config, mode, workers):
    data = dataset.load(config.data)
    order = batches.TrainOrder(data.splits['train'], 64, seed=3)
    steps = range(order.steps_per_epoch - 2, order.steps_per_epoch + 2)  # across two epochs
    found = batches_of(config, mode, order, steps.start, steps.stop, workers)
    assert len(found) == 4
    for step, batch in zip(steps, found, strict=True):
        np.testing.assert_array_equal(batch['index'], order[step])
        np.testing.assert_array_equal(batch['image'], data.images[order[step]])
        np.testing.assert_array_equal(batch['label'], data.labels[order[step]])
        assert batch['mask'].all()
        assert batch['image'].dtype == np.uint8


@pytest.mark.parametrize('mode', ['device', 'host', 'stream'])
def test_padding_is_masked(config, mode):
    data = dataset.load(config.data)
    order = batches.EvalOrder(data.splits['val'], 200)  # 250 examples
    first, last = batches_of(config, mode, order, 0, len(order))
    assert first['mask'].all()
    np.testing.assert_array_equal(last['mask'], np.arange(200) < 50)
    np.testing.assert_array_equal(last['label'][:50], data.labels[data.splits['val'][200:]])


def readers():
    """The number of processes and of threads that read ahead."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith('grain')]
    return len(multiprocessing.active_children()), len(threads)


@pytest.mark.parametrize(('mode', 'workers'), [('host', 0), ('stream', 0), ('stream', 2)])
def test_a_feed_that_is_left_before_its_end_ends_what_reads_for_it(config, mode, workers):
    config.data.mode = mode
    data = dataset.load(config.data)
    feeding = feed.create(data, drivers.create(config.parallel))
    order = batches.TrainOrder(data.splits['train'], 64, seed=0)
    assert readers() == (0, 0)
    items = feeding.batches(order, 0, 10_000, workers)
    for step in range(2):
        batch = feeding.unpack(feeding.data, next(items))
        np.testing.assert_array_equal(np.asarray(batch['index']).ravel(), order[step])
    processes, threads = readers()
    assert processes == workers
    assert threads > 0
    items.close()
    with pytest.raises(StopIteration):
        next(items)
    until = time.monotonic() + 20
    while readers() != (0, 0) and time.monotonic() < until:
        time.sleep(0.05)
    assert readers() == (0, 0)


def test_auto_puts_small_data_on_the_device(config):
    assert config.data.mode == 'auto'
    assert dataset.load(config.data).mode == 'device'
    assert dataset._mode('auto', 2**31) in ('host', 'stream')
    assert dataset._mode('auto', 2**50) == 'stream'
