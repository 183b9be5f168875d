"""The schedule that a dry run shows."""

import jax
import numpy as np
import optax
import pytest

from neptune_jax.training import dry_run


@pytest.mark.parametrize('total', [2, 5, 9_999, 10_001, 300_000, 2**31 - 1])
def test_the_step_with_the_highest_rate_is_found_among_any_number(total):
    with jax.numpy_dtype_promotion('standard'):
        # A float32 rate cannot tell neighbours apart from some number of steps on.
        ramp, fall = (optax.linear_schedule(*ends, total // 3) for ends in ((0.0, 1.0), (1.0, 0.5)))
        schedule = optax.join_schedules([ramp, fall], [total // 3])
        found = dry_run._warmest(schedule, total - 1)
        assert found == pytest.approx(total // 3, abs=1 + total / 2**22)
        assert dry_run._warmest(optax.constant_schedule(0.1), total - 1) == 0
        steps = np.arange(min(total, 10_001))
        assert float(schedule(found)) >= np.max(jax.vmap(schedule)(steps))
