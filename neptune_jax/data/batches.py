"""Which examples make up each batch, as indices, and how a device turns those into a batch."""

import jax.numpy as jnp
import numpy as np


def train_indices(examples, batch_size, seed, step):
    """Yields the indices of every training batch from `step` (0 for the first) on, for ever.

    Each epoch is a permutation that depends on nothing but (seed, epoch), so a run can start at
    any step. The examples of an epoch that fill no batch are left out of it, others each time.

    Args:
        examples: int[n], indices of the training examples; n must fill at least one batch.
        batch_size: of the global batch.
        seed: of the order.
        step: where to start.

    Yields:
        int32[batch_size].
    """
    steps_per_epoch = len(examples) // batch_size
    epoch, position = divmod(step, steps_per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(examples).astype(np.int32)
        yield from order[: steps_per_epoch * batch_size].reshape(-1, batch_size)[position:]
        epoch, position = epoch + 1, 0


def eval_indices(examples, batch_size):
    """Yields the indices of every example once, in order; the last batch is filled up with -1.

    Yields:
        int32[batch_size].
    """
    num_batches = -(-len(examples) // batch_size)
    padded = np.full(num_batches * batch_size, -1, np.int32)
    padded[: len(examples)] = examples
    yield from padded.reshape(num_batches, batch_size)


def gather(data, indices, standardizer):
    """Returns a batch from data that lie on the device.

    Args:
        data: a dict of all examples: `image` uint8[N, H, W, C] and `label` int32[N].
        indices: int32[B]; -1 is padding and gives an arbitrary example with `mask` False.
        standardizer: data.standardize.Standardizer.

    Returns:
        A dict: `image` float32[B, H, W, C], `label` int32[B], `mask` bool[B].
    """
    rows = jnp.maximum(indices, 0)
    return {
        'image': standardizer(data['image'][rows]),
        'label': data['label'][rows],
        'mask': indices >= 0,
    }
