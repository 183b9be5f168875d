"""Looking into a training: a trace of some steps, the operation that makes a NaN, a dry run."""

import contextlib
import traceback
from pathlib import Path

import jax

from neptune_jax.errors import UserError

PACKAGE = Path(__file__).parent


@contextlib.contextmanager
def profiled(train_steps, run, steps, start):
    """Yields `train_steps`, of which some calls are traced.

    The trace lies in the run directory's folder `profile`, which TensorBoard and XProf open.

    Args:
        train_steps: compiled steps, by how many steps a call takes.
        run: runs.Run.
        steps: the first and the last step to trace, or nothing.
        start: how many steps there were before the first call.
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
def nans(debug):
    """Makes the first NaN or infinity that a step computes a UserError that says where.

    Args:
        debug: whether to look for them, which waits for every step.
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
