"""From the body of a request to its results: reading, decoding, waiting for the batch."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from neptune_jax.inference.predictor import Predictor
from neptune_jax.serving import images
from neptune_jax.serving.batching import Batcher, Result
from neptune_jax.serving.limits import Limits, Memory
from neptune_jax.serving.metrics import Metrics

# Handing an image to another thread and back costs as much as decoding one of so many pixels.
_DECODED_IN_BATCH = 128 * 128
# A larger image takes up to 16 bytes a pixel while it is decoded: one at a time.
_DECODED_ALONE = 4_000_000

# Most answers come before it pays to look whether their clients are still there.
_UNWATCHED_SECONDS = 0.05


class Model(NamedTuple):
    """A model that is served."""

    predictor: Predictor
    batcher: Batcher


class Service:
    """What all requests share: the models, the threads that decode, and the memory."""

    def __init__(self, models: Mapping[str, Model], limits: Limits, metrics: Metrics) -> None:
        self.models, self.limits, self.metrics = models, limits, metrics
        self._memory = Memory(limits)
        self._decoders = ThreadPoolExecutor(os.cpu_count(), 'decodes')
        self._alone = asyncio.Lock()

    def close(self) -> None:
        """Ends the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        for model in self.models.values():
            model.batcher.close(seconds=1)

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Yields the body of a request.

        Raises:
            HTTPException: 413, it is too large; 503, bodies take too much memory together.
            ClientDisconnect: the client has closed its connection.
        """
        body, more = bytearray(), True
        try:
            while more:
                message = await request.receive()
                if message['type'] == 'http.disconnect':
                    raise ClientDisconnect
                part, more = message.get('body', b''), message.get('more_body', False)
                self._memory.take(len(part))
                body += part
                if len(body) > self.limits.body_bytes:
                    raise HTTPException(
                        413, f'a body of more than {self.limits.body_bytes:,} bytes'
                    )
            yield bytes(body)
        finally:
            self._memory.give_back(len(body))

    async def results(
        self, request: Request, model: Model, contents: Sequence[bytes | HTTPException]
    ) -> list[Result | Exception]:
        """Returns the result of each image file, or why it has none.

        Args:
            request: whose client waits for them.
            model: the model.
            contents: image files; an HTTPException instead of one is its result.

        Raises:
            HTTPException: 503, too many images wait; 504, these have waited too long.
            ClientDisconnect: the client has closed its connection.
        """
        results: list[Result | Exception] = []
        deadline = asyncio.get_running_loop().time() + self.limits.answer_seconds
        at_once = min(model.batcher.sizes[-1], self.limits.waiting)
        try:
            for start in range(0, len(contents), at_once):
                part = contents[start : start + at_once]
                found = await _together([self._image(model, each, deadline) for each in part])
                waiting = [each for each in found if not isinstance(each, HTTPException)]
                answer = model.batcher.submit(waiting)
                rows = iter(await _in_time(request, answer, deadline))
                results += [
                    each if isinstance(each, HTTPException) else next(rows) for each in found
                ]
        except TimeoutError as error:
            reason = f'no answer in {self.limits.answer_seconds:g} s; try again'
            raise HTTPException(504, reason, {'Retry-After': '1'}) from error
        return results

    async def _image(self, model, content, deadline):
        """Returns uint8[H, W, C] of a file, a function that reads it, or an HTTPException."""
        if isinstance(content, HTTPException):
            return content
        try:
            most = min(self.limits.pixels, model.predictor.conversion.max_pixels)
            pixels = images.pixels_of(content, most)
            read = functools.partial(self._read, model.predictor, content)
            if pixels <= _DECODED_IN_BATCH:
                return read
            async with asyncio.timeout_at(deadline):
                async with self._alone if pixels > _DECODED_ALONE else contextlib.nullcontext():
                    return await asyncio.get_running_loop().run_in_executor(self._decoders, read)
        except HTTPException as error:
            return error

    def _read(self, predictor, content):
        began = time.perf_counter()
        image = images.read(predictor, content)
        self.metrics.decoding_seconds.observe(time.perf_counter() - began)
        return image


async def _together(coroutines: list[Coroutine]) -> list[Any]:
    """Returns the results of some coroutines; of one without the cost of a task."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    return await asyncio.gather(*coroutines)


async def _in_time(request, answer, deadline):
    """Returns the result of a future. If it comes to nothing, the future is cancelled.

    Raises:
        ClientDisconnect: the client has closed its connection.
        TimeoutError: the deadline has passed.
    """
    loop = asyncio.get_running_loop()
    watching = []

    def watch():
        watching.append(loop.create_task(_watch(request, answer, deadline)))

    timer = loop.call_at(min(deadline, loop.time() + _UNWATCHED_SECONDS), watch)
    try:
        return await answer
    finally:
        timer.cancel()
        for task in watching:
            task.cancel()


async def _watch(request, answer, deadline):
    """Ends a future with an exception if the client leaves, and at the deadline."""
    error: Exception = ClientDisconnect()
    try:
        async with asyncio.timeout_at(deadline):
            while (await request.receive())['type'] != 'http.disconnect':
                pass
    except TimeoutError as late:
        error = late
    if not answer.done():
        answer.set_exception(error)
