"""Which runs a report is about, in which order, and which group the others are compared with."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

from neptune_jax.errors import UserError
from neptune_jax.reporting import expressions
from neptune_jax.reporting.grouping import Group
from neptune_jax.reporting.run_record import Record


@dataclasses.dataclass(frozen=True)
class Options:
    """How runs are compared.

    Attributes:
        group_by: the config fields that make groups; None: all that differ.
        baseline: a condition that the runs of one group fulfil; '': there is no baseline.
        metric: the result that is compared; '': the accuracy of the test or the validation.
    """

    group_by: tuple[str, ...] | None = None
    baseline: str = ''
    metric: str = ''

    def given(self) -> dict[str, Any]:
        """Returns those that were given, by their names."""
        return {name: value for name, value in vars(self).items() if value}


def select(records: Sequence[Record], condition: str = '', order: str = '') -> list[Record]:
    """Returns the records for which a condition holds, sorted.

    Raises:
        UserError: there is no run, or the condition or the order names what no run has.
    """
    if not any(record.is_run for record in records):
        problems = [f'{record.name}: {record.problem}' for record in records[:1]]
        raise UserError(f'there is no run to report{"".join(f" ({each})" for each in problems)}')
    found = list(records)
    if condition:
        found = where(found, condition)
        if not found:
            raise UserError(f'--where={condition}: none of the {len(records)} runs is like that')
    return sort(found, order) if order else found


def where(records: Sequence[Record], condition: str) -> list[Record]:
    """Returns the runs for which a condition holds (expressions.py); what is no run is left out.

    Raises:
        UserError: it cannot be read, or no run has a field that it names.
    """
    runs = [record for record in records if record.is_run]
    expression = expressions.parse(condition, '--where')
    check_fields(expression.fields, runs, f'--where={condition}')
    return [record for record in runs if expression.holds(record.value)]


def sort(records: Iterable[Record], fields: str) -> list[Record]:
    """Returns runs sorted by fields and results; runs without a value, and what is no run, last.

    Args:
        records: of runs, and of directories that hold none.
        fields: names with commas between them; a minus before a name puts the largest first.

    Raises:
        UserError: no run has such a field.
    """
    ordered = list(records)
    names = [name.strip() for name in fields.split(',')]
    check_fields([name.lstrip('-') for name in names], ordered, f'--sort={fields}')
    for name in reversed(names):
        field, is_descending = name.removeprefix('-'), name.startswith('-')
        ordered.sort(key=lambda record: _rank(record.value(field)), reverse=is_descending)
        ordered.sort(key=lambda record: _is_unknown(record.value(field)))
    return sorted(ordered, key=lambda record: not record.is_run)


def baseline(groups: Sequence[Group], condition: str) -> Group:
    """Returns the only group whose runs all fulfil a condition, or whose label it is.

    Raises:
        UserError: there is no such group, or there are several.
    """
    found = [group for group in groups if group.label == condition]
    if not found:
        expression = expressions.parse(condition, '--baseline')
        runs = [record for group in groups for record in group.records]
        check_fields(expression.fields, runs, f'--baseline={condition}')
        found = [
            group
            for group in groups
            if all(expression.holds(record.value) for record in group.records)
        ]
    if len(found) != 1:
        which = found or groups
        labels = '; '.join(repr(group.label) for group in which[:8])
        more = f' and {len(which) - 8} more' if len(which) > 8 else ''
        count = f'{len(found)} groups are' if found else 'no group is'
        raise UserError(f'--baseline={condition}: {count} that; name one of {labels}{more}')
    return found[0]


def check_fields(fields: Iterable[str], records: Sequence[Record], what: str) -> None:
    """Raises UserError, naming the nearest, if no run has a value under one of some names.

    Args:
        fields: names that `Record.value` takes.
        records: of runs.
        what: the flag and its value, for the message.
    """
    known: set[str] | None = None
    for field in fields:
        if not records or any(record.value(field) is not None for record in records):
            continue
        if known is None:
            known = {'name', 'status', 'progress', 'updated', 'params', 'train_seconds'}
            for record in records:
                known.update(record.config, record.metrics(), ['best/step', 'best/accuracy'])
        if field in known:  # a field that is unset in all of them
            continue
        nearest = difflib.get_close_matches(field, sorted(known), n=1, cutoff=0.3)
        hint = f'; did you mean {nearest[0]}?' if nearest else ''
        raise UserError(f'{what}: no run has a field or result {field!r}{hint}')


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rank(value: Any) -> tuple:
    """Returns what values of any types are sorted by: numbers, then texts, then the rest."""
    if _is_unknown(value):
        return (3, 0)
    if isinstance(value, int | float):
        return (0, value)
    return (1, value) if isinstance(value, str) else (2, str(value))
