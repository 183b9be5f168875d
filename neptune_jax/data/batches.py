"""Which examples make up each batch, as indices, and how a device turns those into a batch."""

import jax.numpy as jnp
import numpy as np


def train_indices(num_examples, batch_size, seed, step):
    """Yields the indices of every training batch from `step` (0 for the first) on, for ever.

    Each epoch is a permutation that depends on nothing but (seed, epoch), so a run can start at
    any step. The examples of an epoch that fill no batch are left out of it, others each time.

    Yields:
        int32[batch_size].
    """
    steps_per_epoch = num_examples // batch_size
    while True:
        epoch, position = divmod(step, steps_per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(num_examples).astype(np.int32)
        for start in range(position * batch_size, steps_per_epoch * batch_size, batch_size):
            yield order[start : start + batch_size]
            step += 1


def eval_indices(num_examples, batch_size):
    """Yields the indices of every example once, in order; the last batch is filled up with -1.

    Yields:
        int32[batch_size].
    """
    num_batches = -(-num_examples // batch_size)
    padded = np.full(num_batches * batch_size, -1, np.int32)
    padded[:num_examples] = np.arange(num_examples)
    yield from padded.reshape(num_batches, batch_size)


def gather(split, indices, standardizer):
    """Returns a batch from data that lie on the device.

    Args:
        split: `image` uint8[N, H, W, C] and `label` int32[N].
        indices: int32[B]; -1 is padding and gives an arbitrary example with `mask` False.
        standardizer: data.standardize.Standardizer.

    Returns:
        A dict: `image` float32[B, H, W, C], `label` int32[B], `mask` bool[B].
    """
    rows = jnp.maximum(indices, 0)
    return {
        'image': standardizer(split['image'][rows]),
        'label': split['label'][rows],
        'mask': indices >= 0,
    }
