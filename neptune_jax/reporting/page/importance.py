"""How much of an objective a field of the config explains."""

import math
from collections.abc import Hashable, Sequence

_BINS = 6  # of numbers that have many values
_RUNS_A_BIN = 4


def epsilon_squared(values: Sequence[Hashable], objective: Sequence[float]) -> float:
    """Returns the share of the objective's variance that the values of a field explain.

    That is epsilon squared (Kelley, 1935): the correlation ratio with a correction for the number
    of levels, so that a field without influence has about 0. Numbers of many values are put into
    bins of about equal counts. Interactions with other fields are not seen.

    Args:
        values: of the field, one a run.
        objective: of each run.

    Returns:
        From 0 to 1; 0 where it cannot be told.
    """
    levels = _levels(values)
    groups: dict[Hashable, list[float]] = {}
    for level, value in zip(levels, objective, strict=True):
        groups.setdefault(level, []).append(value)
    n, k = len(objective), len(groups)
    if k < 2 or n <= k:
        return 0.0
    mean = math.fsum(objective) / n
    total = math.fsum((value - mean) ** 2 for value in objective)
    within = 0.0
    for own in groups.values():
        center = math.fsum(own) / len(own)
        within += math.fsum((value - center) ** 2 for value in own)
    if total <= 0:
        return 0.0
    return max(0.0, 1 - within / total * (n - 1) / (n - k))


def _levels(values: Sequence[Hashable]) -> list[Hashable]:
    """Returns the level of each value: the value itself, or the bin of a number."""
    bins = max(2, min(_BINS, len(values) // _RUNS_A_BIN))
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(set(values)) <= bins or len(numbers) < len(values):
        return list(values)
    ordered = sorted(numbers)
    edges = [ordered[len(ordered) * i // bins] for i in range(1, bins)]
    # Equal values are in one bin.
    return [sum(value >= edge for edge in edges) for value in numbers]
