"""What all contestants share: data, initial parameters, the order of examples, and commands."""

import re
from pathlib import Path

import numpy as np

from experiments.benchmarks.contestants import NETWORKS

EVAL_BATCH = 500
PADDING = 4  # of the random crops


class Contestant:
    """A training in one library.

    A subclass sets `loss`, that of the first images, and defines `step(rows)`, `wait()`, which
    returns when all steps are done, and `predict(images)`, which returns classes.
    """

    def __init__(self, network: str, batch_size: int, folder: str):
        self.network_name, self.network = network, NETWORKS[network]
        self.batch_size = batch_size
        self.augmented = False
        with np.load(f'{folder}/data.npz') as data:
            self.images, self.labels = data['images'], data['labels'].astype(np.int32)
            self.test_images, self.test_labels = data['test_images'], data['test_labels']
        with np.load(f'{folder}/params.npz') as params:
            self.params = dict(params)  # 'Conv_0/kernel', ...
        self.rng = np.random.default_rng(0)
        self.order = []

    def next_batch(self) -> np.ndarray:
        """Returns the rows of the next batch, int[B]."""
        if len(self.order) < self.batch_size:
            self.order = self.rng.permutation(len(self.images))
        batch, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return batch

    def draw_augmentation(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the corners of a batch's crops, int[2, B], and which are mirrored, bool[B]."""
        offsets = self.rng.integers(2 * PADDING + 1, size=(2, self.batch_size))
        return offsets, self.rng.random(self.batch_size) < 0.5

    def batch_images(self, rows: np.ndarray) -> np.ndarray:
        """Returns float32[B, H, W, C], with augmentation cropped and mirrored at random."""
        images = self.images[rows]
        if not self.augmented:
            return images
        offsets, mirrored = self.draw_augmentation()
        size = images.shape[1:3]
        images = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2))
        images = windows[np.arange(len(rows)), *offsets].transpose(0, 2, 3, 1)
        return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)

    # ------------------------------------------------------------------------------- Commands
    def train(self, steps: int) -> None:
        """Takes the given number of steps and waits for them."""
        for _ in range(steps):
            self.step(self.next_batch())
        self.wait()

    def augment(self, on: int) -> None:
        """Turns the cropping and mirroring of training images on or off."""
        self.augmented = bool(on)

    def evaluate(self, count: int) -> float:
        """Returns the accuracy on the first `count` test images, a multiple of EVAL_BATCH."""
        parts = [
            np.asarray(self.predict(self.test_images[i : i + EVAL_BATCH]))
            for i in range(0, count, EVAL_BATCH)
        ]
        return float(np.mean(np.concatenate(parts) == self.test_labels[:count]))

    def memory(self) -> float:
        """Returns the largest resident set of the process so far, in MiB."""
        # getrusage would also count the process that became this program.
        return int(re.search(r'VmHWM:\s*(\d+) kB', Path('/proc/self/status').read_text())[1]) / 1024
