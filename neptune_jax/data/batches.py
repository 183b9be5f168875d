"""Which examples make up each batch: pure functions of a step's number."""

from collections.abc import Sequence

import numpy as np


class TrainOrder:
    """The batches of a training: `order[step]` is int32[batch_size], for any step from 0.

    Each epoch is a permutation that depends on nothing but (seed, epoch), so a run can start at any
    step, and any process can say which examples a step takes. The examples of an epoch that fill no
    batch are left out of it, others each time. With `balance_by`, an epoch is drawn instead, with
    replacement, so that each class is equally likely.
    """

    def __init__(self, examples, batch_size, seed, balance_by=None):
        """Makes the order.

        Args:
            examples: int[n], the numbers of the training examples; they must fill a batch.
            batch_size: of the global batch.
            seed: of the order.
            balance_by: int[n], the label of each example, or None.
        """
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.balance_by = balance_by
        self.steps_per_epoch = len(examples) // batch_size
        self._epoch, self._order = None, None

    def __getitem__(self, step):
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(epoch)
        start = position * self.batch_size
        return self._order[start : start + self.batch_size]

    def _draw(self, epoch):
        rng = np.random.default_rng((self.seed, epoch))
        if self.balance_by is None:
            return rng.permutation(self.examples).astype(np.int32)
        _, inverse, counts = np.unique(self.balance_by, return_inverse=True, return_counts=True)
        weights = 1 / (counts[inverse] * len(counts))
        return rng.choice(self.examples, len(self.examples), p=weights).astype(np.int32)


class StepGroups:
    """The batches of a training, grouped into the calls of the compiled step.

    `groups[i]` is int32[B] for a call of one step, and int32[B, steps] for a call of several.

    Attributes:
        counts: the number of steps of each call.
    """

    def __init__(
        self,
        order: TrainOrder,
        start: int,
        stop: int,
        steps_per_call: int,
        stops: Sequence[int],
    ):
        """Groups the steps from `start` to `stop`.

        Args:
            order: the batch of each step.
            start: the number of steps taken before.
            stop: the last step.
            steps_per_call: the steps of a call, where they fit.
            stops: no call goes beyond a multiple of one of these numbers. The steps left before
                such a multiple are taken one by one.
        """
        self._order, self._starts, self.counts = order, [], []
        while start < stop:
            end = min(stop, *(start - start % every + every for every in stops))
            count = steps_per_call if start + steps_per_call <= end else 1
            self._starts.append(start)
            self.counts.append(count)
            start += count

    def __len__(self):
        return len(self.counts)

    def __getitem__(self, number):
        start, count = self._starts[number], self.counts[number]
        if count == 1:
            return self._order[start]
        return np.stack([self._order[step] for step in range(start, start + count)], axis=1)


def share(indices, process, processes):
    """Returns the part of a batch's indices, int32[B, ...], that one of several processes reads."""
    return indices.reshape(processes, -1, *indices.shape[1:])[process]


class EvalOrder:
    """The batches of an evaluation: every example once, in order; -1 fills the last batch up."""

    def __init__(self, examples, batch_size):
        self.examples, self.batch_size = examples, batch_size

    def __len__(self):
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, number):
        batch = np.full(self.batch_size, -1, np.int32)
        found = self.examples[number * self.batch_size :][: self.batch_size]
        batch[: len(found)] = found
        return batch
