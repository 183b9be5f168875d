import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_jax.data import batches
from neptune_jax.data.standardize import Standardizer

EXAMPLES = np.arange(100, 150)  # indices need not start at 0


def take(count, step=0, seed=0, batch_size=8):
    stream = batches.train_indices(EXAMPLES, batch_size, seed, step)
    return list(itertools.islice(stream, count))


@given(start=st.integers(0, 30), batch_size=st.sampled_from([1, 7, 8, 50]))
def test_the_order_can_be_entered_at_any_step(start, batch_size):
    everything = take(start + 5, batch_size=batch_size)
    np.testing.assert_array_equal(take(5, step=start, batch_size=batch_size), everything[start:])


def test_an_epoch_holds_each_example_at_most_once_and_its_order_is_its_own():
    epochs = np.reshape(take(18), (3, 48))  # six batches of eight out of fifty examples
    for epoch in epochs:
        assert len(np.unique(epoch)) == 48
        assert np.isin(epoch, EXAMPLES).all()
    assert (epochs[0] != epochs[1]).any()
    assert (np.concatenate(take(6, seed=1)) != epochs[0]).any()


@given(count=st.integers(1, 50), batch_size=st.integers(1, 20))
def test_evaluation_holds_each_example_once_whatever_the_batch_size(count, batch_size):
    found = list(batches.eval_indices(EXAMPLES[:count], batch_size))
    assert {len(batch) for batch in found} == {batch_size}
    flat = np.concatenate(found)
    np.testing.assert_array_equal(flat[flat >= 0], EXAMPLES[:count])
    assert len(flat) - count < batch_size


@pytest.mark.parametrize('channels', [1, 3])
def test_gather_takes_the_rows_and_masks_the_padding(channels):
    rng = np.random.default_rng(0)
    data = {
        'image': rng.integers(0, 256, (10, 4, 4, channels)).astype(np.uint8),
        'label': rng.integers(0, 5, 10).astype(np.int32),
    }
    shift, scale = (rng.uniform(0.1, 1, channels).astype(np.float32) for _ in range(2))
    indices = np.array([7, 0, -1], np.int32)
    batch = batches.gather(data, indices, Standardizer(shift, scale))
    np.testing.assert_array_equal(batch['mask'], [True, True, False])
    np.testing.assert_array_equal(batch['label'][:2], data['label'][[7, 0]])
    expected = (data['image'][[7, 0]] / 255 - shift) / scale
    np.testing.assert_allclose(batch['image'][:2], expected, rtol=1e-5, atol=1e-6)
