"""Dynamic batching: images wait in one queue, one thread computes all that wait at once."""

import asyncio
import collections
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from neptune_jax.serving import limits
from neptune_jax.serving.metrics import Metrics


class Compilable(Protocol):
    """What the batcher needs of a Predictor."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""

    def compiled(self, batch_size: int) -> Callable[[np.ndarray], Any]:
        """Returns a function from uint8[batch_size, H, W, C] to float32[batch_size, K]."""


def padded_sizes(limit: int) -> list[int]:
    """Returns the batch sizes that are compiled: the powers of two below the limit, and it."""
    return [*(2**power for power in range((limit - 1).bit_length())), limit]


class Result(NamedTuple):
    """What an image gets."""

    image: np.ndarray  # uint8[H, W, C], as the network sees it
    probabilities: np.ndarray  # float32[K]


class _Request:
    """Images that came together, and the future of their results."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.answer: asyncio.Future[list] = loop.create_future()
        self.since = time.perf_counter()
        self.results: list = [None] * count
        self.missing = count
        if not count:
            self.answer.set_result([])

    def deliver(self, number: int, result: Result | Exception) -> None:
        """Takes the result of one image. It runs in the event loop."""
        self.results[number] = result
        self.missing -= 1
        if not self.missing and not self.answer.done():
            self.answer.set_result(self.results)


class _Waiting(NamedTuple):
    request: _Request
    number: int  # of the image in its request
    image: np.ndarray | Callable[[], np.ndarray]


class Batcher:
    """The queue of a model and the thread that computes.

    The thread takes all images that wait, up to `limit`, without waiting for more. It pads them
    with black images to the next of `padded_sizes`. So while it computes one batch, the next one
    gathers: the more clients there are, the larger the batches.

    It also decodes small images, one after another. That takes less time than handing each of them
    to a thread of its own and back.
    """

    def __init__(
        self, predictor: Compilable, *, name: str, limit: int, capacity: int, metrics: Metrics
    ) -> None:
        """Prepares a batcher; `start` starts it.

        Args:
            predictor: the model.
            name: of the model, for metrics.
            limit: images in a batch.
            capacity: images that may wait.
            metrics: where times and sizes are counted.
        """
        self.sizes = padded_sizes(limit)
        self.is_ready = False  # all sizes are compiled
        self._predictor = predictor
        self._capacity = capacity
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._changed = threading.Condition()
        self._ends = False
        self._name = name
        self._queue_seconds = metrics.queue_seconds.labels(name)
        self._batch_images = metrics.batch_images.labels(name)
        self._computing_seconds = metrics.computing_seconds.labels(name)
        self._dropped = metrics.dropped
        metrics.waiting.labels(name).set_function(lambda: len(self._queue))

    def start(self, compiled: Callable[[BaseException | None], None]) -> None:
        """Starts the thread, in a running event loop. It compiles all sizes, then it computes.

        Args:
            compiled: called in the event loop after that, with the exception if it has failed.
        """
        self._loop = asyncio.get_running_loop()
        self._compiled = compiled
        self._thread = threading.Thread(target=self._run, name=f'batches {self._name}', daemon=True)
        self._thread.start()

    def close(self, seconds: float | None = None) -> None:
        """Ends the thread after it has computed what waits, and waits for it."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(seconds)

    def submit(
        self, images: Sequence[np.ndarray | Callable[[], np.ndarray]]
    ) -> asyncio.Future[list[Result | Exception]]:
        """Puts images into the queue, all or none. Call it in the event loop.

        Args:
            images: each uint8[H, W, C], or a function that returns it, for the thread
                to call. What that raises is its result.

        Returns:
            The future of their results. If it is done before, by the caller, they are dropped.

        Raises:
            HTTPException: 503, the queue is full or the model is not compiled yet.
        """
        if not self.is_ready:
            raise limits.busy(f'the model {self._name} is still being compiled')
        request = _Request(self._loop, len(images))
        with self._changed:
            if len(self._queue) + len(images) > self._capacity:
                raise limits.busy(f'{len(self._queue)} images wait already')
            self._queue.extend(_Waiting(request, *each) for each in enumerate(images))
            self._changed.notify()
        return request.answer

    def _run(self):
        try:
            programs = {size: self._predictor.compiled(size) for size in self.sizes}
            for size, program in programs.items():
                np.asarray(program(np.zeros((size, *self._predictor.image_shape), np.uint8)))
        except Exception as error:
            self._loop.call_soon_threadsafe(self._compiled, error)
            return
        self.is_ready = True
        self._loop.call_soon_threadsafe(self._compiled, None)
        while batch := self._take():
            results = self._compute(programs, batch)
            self._loop.call_soon_threadsafe(_deliver, batch, results)

    def _take(self):
        """Waits for images and returns up to a batch of them; [] at the end."""
        batch: list[_Waiting] = []
        with self._changed:
            while not batch:
                while not self._queue and not self._ends:
                    self._changed.wait()
                if not self._queue:
                    break
                while self._queue and len(batch) < self.sizes[-1]:
                    waiting = self._queue.popleft()
                    if waiting.request.answer.done():  # the client has left, or was given up
                        self._dropped.inc()
                    else:
                        batch.append(waiting)
        return batch

    def _compute(self, programs, batch):
        """Returns a Result or an exception for each image."""
        now = time.perf_counter()
        for waiting in batch:
            self._queue_seconds.observe(now - waiting.request.since)
        found = [_image_of(waiting) for waiting in batch]
        images = [image for image in found if not isinstance(image, Exception)]
        if not images:
            return found
        try:
            rows = iter(self._probabilities(programs, images))
        except Exception as error:  # of XLA or of the device; the next batch may succeed
            traceback.print_exc()
            return [error] * len(batch)
        return [
            image if isinstance(image, Exception) else Result(image, next(rows)) for image in found
        ]

    def _probabilities(self, programs, images):
        began = time.perf_counter()
        size = next(size for size in self.sizes if size >= len(images))
        padded = np.zeros((size, *self._predictor.image_shape), np.uint8)
        padded[: len(images)] = images
        probabilities = np.asarray(programs[size](padded))
        self._computing_seconds.observe(time.perf_counter() - began)
        self._batch_images.observe(len(images))
        return probabilities


def _image_of(waiting):
    try:
        return waiting.image() if callable(waiting.image) else waiting.image
    except Exception as error:  # the image cannot be used
        return error


def _deliver(batch, results):
    for waiting, result in zip(batch, results, strict=True):
        waiting.request.deliver(waiting.number, result)
