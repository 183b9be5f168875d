"""Which examples make up each batch: pure functions of the number of the step."""

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

    The calls of a run depend on its length, `steps_per_call` and `every` alone. From each multiple
    of `every` on, as many calls of `steps_per_call` steps follow as fit before the next multiple.
    The steps that are left before it are taken one by one. Nothing here is a list of all calls:
    a run may have 10**9 steps.
    """

    def __init__(
        self, order: TrainOrder, start: int, stop: int, steps_per_call: int, every: int
    ) -> None:
        """Groups the steps from `start` to `stop`.

        Args:
            order: the batch of each step.
            start: the number of steps that have been taken. If that is in the middle of a call, the
                rest of it is taken step by step.
            stop: the number of steps after the last call, that of the whole run.
            steps_per_call: the number of steps of a call.
            every: a call ends at each multiple of this number.
        """
        self._order, self._start, self._stop = order, start, stop
        self._steps_per_call, self._every = steps_per_call, every
        place = start % every
        self._rest = -place % steps_per_call if place < self._grouped(start - place) else 0
        self._skipped = self._calls_before(start + self._rest)

    def _grouped(self, begin):
        """Returns how many steps after `begin`, a multiple of `every`, are in long calls."""
        length = min(self._every, self._stop - begin)
        return length - length % self._steps_per_call

    def _calls_before(self, step):
        """Returns the number of calls of the whole run before one that begins after `step`."""
        intervals, place = divmod(step, self._every)
        whole, place = (divmod(steps, self._steps_per_call) for steps in (self._every, place))
        return intervals * sum(whole) + sum(place)

    def _step(self, number):
        """Returns the number of steps before a call of this run."""
        if number < self._rest:
            return self._start + number
        number += self._skipped - self._rest
        calls = self._calls_before(self._every)
        interval = min(number // calls, self._stop // self._every)
        begin, number = interval * self._every, number - interval * calls
        long_calls = self._grouped(begin) // self._steps_per_call
        extra = self._steps_per_call - 1
        return begin + number + min(number, long_calls) * extra

    def count(self, step: int) -> int:
        """Returns the number of steps of the call that follows after `step` steps."""
        place = step % self._every
        begins = place % self._steps_per_call == 0 and place < self._grouped(step - place)
        return self._steps_per_call if begins else 1

    def counts(self) -> set[int]:
        """Returns the different numbers of steps of a call."""
        steps, calls = self._stop - self._start, len(self)
        if steps == calls:
            return {1} if steps else set()
        long_calls = (steps - calls) // (self._steps_per_call - 1)
        return {self._steps_per_call} | ({1} if calls > long_calls else set())

    def __len__(self) -> int:
        return self._rest + self._calls_before(self._stop) - self._skipped

    def __getitem__(self, number: int) -> np.ndarray:
        step = self._step(number)
        count = self.count(step)
        if count == 1:
            return self._order[step]
        return np.stack([self._order[step + i] for i in range(count)], axis=1)


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
