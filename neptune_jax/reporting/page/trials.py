"""The runs of a search with their objectives, and the fields that it varies with their scales."""

import dataclasses
import math
from collections.abc import Sequence

from neptune_jax.reporting.grouping import shown
from neptune_jax.reporting.page import charts, importance
from neptune_jax.reporting.page.markup import number, shorten, visible
from neptune_jax.reporting.page.views import View
from neptune_jax.reporting.run_record import Record

_MAX_FIELDS, _MAX_CHOICES = 8, 12
_MAX_LEVELS = 5  # different numbers that are shown as choices
_LOG_RATIO = 20  # of the largest and the smallest value of a logarithmic axis


@dataclasses.dataclass(frozen=True)
class Trial:
    """A run with the value of the objective."""

    record: Record
    number: int  # from 0, in the order of their starts
    value: float


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A field of the config with the scale of its values.

    Attributes:
        field: its name.
        choices: its values if they are few or no numbers, sorted; None for a scale of numbers.
        values: the numbers that the scale has to show.
        log: whether the scale is logarithmic.
        matters: its importance, from 0 to 1.
    """

    field: str
    choices: tuple[str, ...] | None
    values: tuple[float, ...]
    log: bool
    matters: float

    def axis(self, start: float, end: float) -> charts.Axis:
        """Returns the scale between two places."""
        if self.choices is None:
            return charts.axis(self.values, start, end, self.log, pad=0.03)
        return charts.Axis(-0.5, len(self.choices) - 0.5, start, end)

    def value(self, record: Record) -> float:
        """Returns the value of a run on the scale."""
        value = record.value(self.field)
        return float(value) if self.choices is None else float(self.choices.index(shown(value)))

    def ticks(self, scale: charts.Axis) -> list[tuple[float, str]]:
        """Returns values of the scale with their texts."""
        if self.choices is None:
            return [(value, number(value)) for value in scale.ticks(4)]
        return [(float(i), shorten(visible(text), 14)) for i, text in enumerate(self.choices)]


def of_view(view: View) -> list[Trial]:
    """Returns the runs that have a value of the objective, in the order of their starts."""
    found = []
    for record in view.runs:
        value = record.value(view.objective)
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((record, float(value)))
    found.sort(key=lambda each: _start(each[0]))
    return [Trial(record, place, value) for place, (record, value) in enumerate(found)]


def _start(record: Record) -> tuple[float, str]:
    order = record.trial.get('number')
    if not isinstance(order, int):
        order = record.rows[0].get('time', 0.0) if record.rows else record.updated
    return float(order), record.name


def dimensions(view: View, trials: Sequence[Trial]) -> list[Dimension]:
    """Returns the fields that differ, the most important first."""
    found = []
    values = [trial.value for trial in trials]
    for field in view.fields:
        own = [trial.record.value(field) for trial in trials]
        different = {shown(value) for value in own}
        if len(different) < 2:
            continue
        are_numbers = all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in own
        )
        matters = importance.epsilon_squared(own if are_numbers else [*map(shown, own)], values)
        if are_numbers and len(different) > _MAX_LEVELS:
            low, high = min(own), max(own)
            log = low > 0 and high / low >= _LOG_RATIO
            found.append(Dimension(field, None, tuple(map(float, own)), log, matters))
        elif len(different) <= _MAX_CHOICES:
            order = sorted(set(own)) if are_numbers else sorted(different)
            found.append(Dimension(field, tuple(map(shown, order)), (), False, matters))
    found.sort(key=lambda each: -each.matters)
    return found[:_MAX_FIELDS]
