"""Which examples make up each batch: pure functions of the number of the step."""

from collections.abc import Sequence

import numpy as np


class TrainOrder:
    """The batches of a training: `order[step]` is int32[batch_size], for any step from 0.

    Each epoch is a permutation of the examples that depends on (seed, epoch) alone. So a run can
    start at any step, and each process knows the examples of a step. The last examples of an epoch
    that do not fill a batch are left out; each epoch leaves out others. With `balance_by`, the
    examples of an epoch are drawn with replacement instead, and each class is equally likely.
    """

    def __init__(
        self,
        examples: np.ndarray,
        batch_size: int,
        seed: int,
        balance_by: np.ndarray | None = None,
    ) -> None:
        """Makes the order.

        Args:
            examples: int[n], the numbers of the training examples; n is at least `batch_size`.
            batch_size: of the global batch.
            seed: of the order.
            balance_by: int[n], the label of each example; None: no balancing.
        """
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.balance_by = balance_by
        self.steps_per_epoch = len(examples) // batch_size
        self._epoch, self._order = -1, np.zeros(0, np.int32)  # the epoch drawn last, its examples

    def __getitem__(self, step: int) -> np.ndarray:
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

    `groups[i]` is int32[B] for a call of one step, int32[B, steps] for a call of several steps.

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
    ) -> None:
        """Groups the steps from `start` to `stop`.

        Args:
            order: the batch of each step.
            start: the number of steps that have been taken.
            stop: the number of steps after the last call.
            steps_per_call: the number of steps of a call.
            stops: no call goes beyond a multiple of one of these numbers. If fewer than
                `steps_per_call` steps are left before such a multiple, they are taken one by one.
        """
        self._order, self._starts, self.counts = order, [], []
        while start < stop:
            end = min(stop, *(start - start % every + every for every in stops))
            count = steps_per_call if start + steps_per_call <= end else 1
            self._starts.append(start)
            self.counts.append(count)
            start += count

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, number: int) -> np.ndarray:
        start, count = self._starts[number], self.counts[number]
        if count == 1:
            return self._order[start]
        return np.stack([self._order[step] for step in range(start, start + count)], axis=1)


def share(indices: np.ndarray, process: int, processes: int) -> np.ndarray:
    """Returns the part of a batch that one of several processes reads.

    Args:
        indices: int32[B, ...], the examples of the global batch.
        process: the number of the process, from 0.
        processes: the number of processes; it divides B.
    """
    return indices.reshape(processes, -1, *indices.shape[1:])[process]


class EvalOrder:
    """The batches of an evaluation: each example once, in order. The last batch ends with -1s."""

    def __init__(self, examples: np.ndarray, batch_size: int) -> None:
        self.examples, self.batch_size = examples, batch_size

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, number: int) -> np.ndarray:
        batch = np.full(self.batch_size, -1, np.int32)
        found = self.examples[number * self.batch_size :][: self.batch_size]
        batch[: len(found)] = found
        return batch
