"""The queue and the thread that computes, without HTTP."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from neptune_jax.serving.batching import Batcher, padded_sizes
from neptune_jax.serving.metrics import Metrics


def test_the_sizes_are_the_powers_of_two_and_the_limit():
    assert padded_sizes(1) == [1]
    assert padded_sizes(8) == [1, 2, 4, 8]
    assert padded_sizes(6) == [1, 2, 4, 6]


@contextlib.asynccontextmanager
async def started(predictor, limit=8, capacity=100):
    """Yields a batcher that is ready, and a function of a metric's name to its value."""
    metrics = Metrics()
    batcher = Batcher(predictor, name='run', limit=limit, capacity=capacity, metrics=metrics)
    compiled = asyncio.get_running_loop().create_future()
    batcher.start(compiled.set_result)
    assert await compiled is None

    def value(name, **labels):
        return metrics._registry.get_sample_value(f'neptune_jax_{name}', labels)

    try:
        yield batcher, value
    finally:
        batcher.close()


@contextlib.contextmanager
def held(batcher, picture):
    """Keeps the thread busy with an image of its own, so that others gather; yields its future."""
    begun, go_on = threading.Event(), threading.Event()

    def read():
        begun.set()
        assert go_on.wait(30)
        return picture

    answer = batcher.submit([read])
    assert begun.wait(30)
    try:
        yield answer
    finally:
        go_on.set()


def test_all_that_wait_are_one_batch_with_the_bits_of_the_predictor(predictor, pictures):
    async def run():
        async with started(predictor) as (batcher, value):
            for count in (1, 2, 3, 5, 8):
                before = value('batch_images_count', model='run')
                with held(batcher, pictures[0]) as first:
                    answers = [batcher.submit([each]) for each in pictures[:count]]
                found = [result for each in answers for result in await each]
                await first
                assert value('batch_images_count', model='run') == before + 2
                size = next(size for size in (1, 2, 4, 8) if size >= count)
                padded = np.zeros((size, 28, 28, 1), np.uint8)
                padded[:count] = pictures[:count]
                expected = np.asarray(predictor.compiled(size)(padded))[:count]
                np.testing.assert_array_equal([each.probabilities for each in found], expected)

    asyncio.run(run())


def test_an_answer_does_not_depend_on_the_other_images_nor_on_its_place(predictor, pictures):
    async def run():
        async with started(predictor) as (batcher, _):
            rows = []
            for place in range(8):
                others = list(np.roll(pictures, place, axis=0)[:8])
                others[place] = pictures[11]
                rows.append((await batcher.submit(others))[place].probabilities)
            return rows

    rows = asyncio.run(run())
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])


def test_more_than_the_limit_are_several_batches(predictor, pictures):
    async def run():
        async with started(predictor, limit=3) as (batcher, value):
            results = await batcher.submit(list(pictures[:8]))
            assert value('batch_images_count', model='run') == 3
            assert value('batch_images_sum', model='run') == 8
            return results

    found = [each.probabilities for each in asyncio.run(run())]
    np.testing.assert_allclose(found, predictor(pictures[:8]), rtol=1e-5)


def test_a_full_queue_takes_all_images_of_a_request_or_none(predictor, pictures):
    async def run():
        async with started(predictor, capacity=4) as (batcher, value):
            with held(batcher, pictures[0]):
                first = batcher.submit(list(pictures[:3]))
                with pytest.raises(HTTPException) as refused:
                    batcher.submit(list(pictures[:2]))
                assert refused.value.status_code == 503
                assert refused.value.headers == {'Retry-After': '1'}
                assert value('waiting_images', model='run') == 3
                last = batcher.submit([pictures[3]])
            assert len(await first) == 3
            assert len(await last) == 1

    asyncio.run(run())


def test_images_that_nobody_waits_for_are_dropped(predictor, pictures):
    async def run():
        async with started(predictor) as (batcher, value):
            with held(batcher, pictures[0]) as first:
                left = batcher.submit(list(pictures[:3]))
                kept = batcher.submit([pictures[3]])
                left.cancel()
            await first
            await kept
            assert value('images_dropped_total') == 3
            assert value('batch_images_sum', model='run') == 2

    asyncio.run(run())


def test_an_image_that_cannot_be_read_fails_alone(predictor, pictures):
    def fail():
        raise HTTPException(422, 'a damaged image')

    async def run():
        async with started(predictor) as (batcher, _):
            first, second, third = await batcher.submit([pictures[0], fail, lambda: pictures[1]])
            assert (await batcher.submit([fail]))[0].detail == 'a damaged image'
            return first, second, third

    first, second, third = asyncio.run(run())
    assert second.detail == 'a damaged image'
    expected = predictor(pictures[:2])
    np.testing.assert_allclose([first.probabilities, third.probabilities], expected, rtol=1e-5)
    np.testing.assert_array_equal(third.image, pictures[1])


class Failing:
    """A model that fails at every other batch, as a device may that runs out of memory."""

    image_shape = (28, 28, 1)

    def __init__(self, calls=0):
        self.calls = calls

    def compiled(self, batch_size):
        def program(images):
            self.calls += 1
            if self.calls % 2 == 0:
                raise RuntimeError('RESOURCE_EXHAUSTED: out of memory')
            return np.ones((batch_size, 10), np.float32)

        return program


def test_a_batch_that_fails_does_not_end_the_thread(pictures, capsys):
    async def run():
        async with started(Failing(), limit=1) as (batcher, _):
            failed = await batcher.submit([pictures[0]])
            return failed, await batcher.submit([pictures[0]])

    (failed,), (result,) = asyncio.run(run())
    assert isinstance(failed, RuntimeError)
    assert result.probabilities.sum() == 10
    assert 'RESOURCE_EXHAUSTED' in capsys.readouterr().err


def test_a_model_that_is_not_compiled_answers_nothing(pictures):
    async def run():
        batcher = Batcher(Failing(1), name='run', limit=1, capacity=1, metrics=Metrics())
        with pytest.raises(HTTPException, match='still being compiled'):
            batcher.submit([pictures[0]])
        compiled = asyncio.get_running_loop().create_future()
        batcher.start(compiled.set_result)
        error = await compiled
        assert 'RESOURCE_EXHAUSTED' in str(error)
        assert not batcher.is_ready

    asyncio.run(run())


def test_what_waits_at_the_end_is_computed(predictor, pictures):
    async def run():
        async with started(predictor, limit=2) as (batcher, _):
            with held(batcher, pictures[0]):
                answer = batcher.submit(list(pictures[:5]))
                threading.Timer(0.1, batcher.close).start()
            return await answer

    assert len(asyncio.run(run())) == 5
