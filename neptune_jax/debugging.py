"""Looking into a training: a trace of some steps, the operation that makes a NaN, a dry run."""

import contextlib
import traceback
from pathlib import Path

import jax

from neptune_jax.errors import UserError

PACKAGE = Path(__file__).parent


@contextlib.contextmanager
def profiled(train_step, run, steps, start):
    """Yields `train_step`, of which some calls are traced.

    The trace lies in the run directory's folder `profile`, which TensorBoard and XProf open.

    Args:
        train_step: a compiled step.
        run: runs.Run.
        steps: the first and the last step to trace, or nothing.
        start: how many steps there were before the first call.
    """
    if not steps:
        yield train_step
        return
    step, tracing = start, False

    def stop():
        nonlocal tracing
        if tracing:
            jax.profiler.stop_trace()
        tracing = False

    def traced_step(*args):
        nonlocal step, tracing
        step += 1
        if steps[0] <= step <= steps[1] and not tracing:
            jax.profiler.start_trace(run.path('profile'))
            tracing = True
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
            result = train_step(*args)
        if step == steps[1]:
            jax.block_until_ready(result)
            stop()
        return result

    try:
        yield traced_step
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
