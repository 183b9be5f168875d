"""Looking into a training: a trace of some steps, the operation that makes a NaN, a dry run."""

import contextlib
import traceback
from pathlib import Path

import jax

from neptune_jax.errors import UserError

PACKAGE = Path(__file__).parent


@contextlib.contextmanager
def profile(run, steps):
    """Yields a function of a step's number, a context in which to take it; traces some of them.

    The trace lies in the run directory's folder `profile`, which TensorBoard and XProf open.

    Args:
        run: runs.Run.
        steps: the first and the last step to trace, or nothing.
    """
    first, last = steps or (0, 0)
    tracing = False

    @contextlib.contextmanager
    def profiled(step):
        nonlocal tracing
        if not first <= step <= last:
            yield
            return
        if not tracing:
            jax.profiler.start_trace(run.path('profile'))
            tracing = True
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
            yield
        if step == last:
            stop()

    def stop():
        nonlocal tracing
        if tracing:
            jax.effects_barrier()
            jax.profiler.stop_trace()
            tracing = False

    try:
        yield profiled
    finally:
        stop()


@contextlib.contextmanager
def nans(debug):
    """Makes the first NaN or infinity that a step computes a UserError that says where.

    Args:
        debug: whether to look for them; each step is then run twice as slow at least.
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
