"""Looking into a training: a profiler trace of some steps, the operation that makes a NaN."""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from neptune_jax.errors import UserError
from neptune_jax.runs.writer import Run

PACKAGE = Path(__file__).parents[1]


@contextlib.contextmanager
def profiled(
    train_steps: dict[int, Callable], run: Run, steps: Sequence[int], start: int
) -> Iterator[dict[int, Callable]]:
    """Yields `train_steps`, wrapped so that the calls of some steps are traced.

    The trace is in the folder `profile` of the run directory. TensorBoard and XProf open it.

    Args:
        train_steps: compiled steps, by the number of steps in a call.
        run: the run.
        steps: the first and the last step to trace; empty: none.
        start: the number of steps before the first call.
    """
    if not steps:
        yield train_steps
        return
    step, tracing = start, False

    def stop():
        nonlocal tracing
        if tracing:
            jax.profiler.stop_trace()
        tracing = False

    def traced(count, train_step):
        def traced_step(*args):
            nonlocal step, tracing
            first, step = step + 1, step + count
            if first <= steps[1] and step >= steps[0] and not tracing:
                jax.profiler.start_trace(run.path('profile'))
                tracing = True
            with jax.profiler.StepTraceAnnotation('train', step_num=step):
                result = train_step(*args)
            if first <= steps[1] <= step:
                jax.block_until_ready(result)
                stop()
            return result

        return traced_step

    try:
        yield {count: traced(count, train_step) for count, train_step in train_steps.items()}
    finally:
        stop()


@contextlib.contextmanager
def nans(debug: bool) -> Iterator[None]:
    """Turns the first NaN or infinity that a step computes into a UserError that names the line.

    Args:
        debug: whether to look for them, which makes the training wait for every step.
    """
    if not debug:
        yield
        return
    with jax.debug_nans(True), jax.debug_infs(True):
        try:
            yield
        except FloatingPointError as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if PACKAGE in Path(frame.filename).parents]
            where = ours[-1]
            raise UserError(
                f'{" ".join(str(error).split())[:120]} at {where.filename}, line {where.lineno}: '
                f'{where.line}'
            ) from error
