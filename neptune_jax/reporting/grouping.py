"""Runs of one experiment: the fields that differ between runs, and groups of runs without them."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neptune_jax.errors import UserError
from neptune_jax.reporting.run_record import Record, is_place

SEED = 'seed'
_MAX_NAMED = 3  # fields in a label that are there though the others would be enough


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone, or in fields that one does not ask about."""

    label: str  # such as 'optim.name=sgd, optim.learning_rate=0.1'; 'all runs' if nothing differs
    fields: Mapping[str, Any]  # all fields that it was grouped by, with their values
    records: tuple[Record, ...]
    named: tuple[str, ...] = ()  # the fields in its label, if the label has nothing else
    others: tuple[str, ...] = ()  # fields but the seed that differ within groups

    def finished(self) -> list[Record]:
        """Returns its finished runs."""
        return [record for record in self.records if record.status == 'finished']

    def values(self, metric: str) -> dict[Any, float]:
        """Returns a metric of each finished run that has it, by its seed.

        The key also names other fields that differ within the group: 'data.fold=1, seed=0'. Runs
        that would have the same key are told apart by their names.
        """
        found: dict[Any, float] = {}
        for key, record in self.members().items():
            value = record.value(metric)
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[key] = float(value)
        return found

    def members(self) -> dict[Any, Record]:
        """Returns the finished runs by the keys of `values`, sorted by the seed."""
        found: dict[Any, Record] = {}
        for record in self.finished():
            key = self._key_of(record)
            found[record.name if key in found else key] = record
        numbers = sorted(key for key in found if isinstance(key, int))
        others = [key for key in found if not isinstance(key, int)]
        return {key: found[key] for key in (*numbers, *others)}

    def repeated(self) -> list[tuple[Record, Record]]:
        """Returns finished runs that have the same key as an earlier one, with that one."""
        first: dict[Any, Record] = {}
        pairs = []
        for record in self.finished():
            earlier = first.setdefault(self._key_of(record), record)
            pairs += [(earlier, record)] if earlier is not record else []
        return pairs

    def _key_of(self, record: Record) -> Any:
        seed = record.config.get(SEED)
        if self.others:
            return ', '.join(f'{name}={shown(record.config.get(name))}' for name in self.others) + (
                f', {SEED}={shown(seed)}'
            )
        return seed if isinstance(seed, int | str) else record.name


def differing(records: Iterable[Record]) -> list[str]:
    """Returns the config fields whose values differ, without `seed` and places, in their order."""
    seen: dict[str, set] = {}
    runs = [record for record in records if record.is_run]
    for record in runs:
        for field, value in record.config.items():
            seen.setdefault(field, set()).add(_key(value))
    count = {field: sum(field in record.config for record in runs) for field in seen}
    return [
        field
        for field, values in seen.items()
        if field != SEED and not is_place(field) and (len(values) > 1 or count[field] < len(runs))
    ]


def group(records: Iterable[Record], by: Sequence[str] | None = None) -> list[Group]:
    """Returns groups of runs, in the order of their first runs. What is no run is in none.

    Runs that were tested on other images are never in one group.

    Args:
        records: of runs.
        by: the fields to group by; None: those of `differing`.

    Raises:
        UserError: no run has a field of `by`.
    """
    runs = [record for record in records if record.is_run]
    fields = differing(runs) if by is None else list(by)
    for field in fields if runs else ():
        if all(record.value(field) is None for record in runs):
            raise UserError(f'--group_by={field}: no run has such a field')
    members: dict[tuple, list[Record]] = {}
    for record in runs:
        key = (*(_key(record.value(field)) for field in fields), record.test_images)
        members.setdefault(key, []).append(record)
    named = _named_fields(fields, list(members))
    others = tuple(
        field
        for field in (differing(runs) if by is not None else ())
        if field not in fields
        and any(len({_key(run.config.get(field)) for run in own}) > 1 for own in members.values())
    )
    groups = []
    keys = [key[:-1] for key in members]
    is_same_images = len(set(keys)) == len(keys)
    for key, own in members.items():
        label = ', '.join(f'{field}={shown(own[0].value(field))}' for field in named)
        if keys.count(key[:-1]) > 1:
            label = ', '.join(filter(None, (label, f'test images {key[-1][:8] or "unknown"}')))
        groups.append(
            Group(
                label=label or 'all runs',
                fields={field: own[0].value(field) for field in fields},
                records=tuple(own),
                named=tuple(named) if is_same_images else (),
                others=others,
            )
        )
    return groups


def named_fields(records: Iterable[Record]) -> list[str]:
    """Returns the fields of `differing` that are needed to tell the configs apart."""
    runs = [record for record in records if record.is_run]
    fields = differing(runs)
    return _named_fields(fields, [tuple(_key(run.value(each)) for each in fields) for run in runs])


def shown(value: Any) -> str:
    """Returns a value of a config as a table shows it."""
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:g}' if math.isclose(float(f'{value:g}'), value) else repr(value)
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(shown, value))}]'
    return str(value)


def _named_fields(fields, keys):
    """Returns the fields that a label needs.

    Networks differ in many fields of their own, and runs of several experiments in many others;
    those are left out where the rest tells the groups apart.
    """
    named = list(fields)
    own = [
        field
        for field in fields
        if field.startswith(('model.', 'optim.options.')) and field != 'model.name'
    ]
    # The name of a network, an optimizer or the data tells most, so it is the last to go.
    for field in sorted(
        [*reversed(own), *reversed(fields)], key=lambda each: each.endswith('.name')
    ):
        if field not in named or (field not in own and len(named) <= _MAX_NAMED):
            continue
        rest = [each for each in named if each != field]
        if _count(keys, fields, rest) == _count(keys, fields, named):
            named = rest
    return named


def _count(keys, fields, chosen):
    """Returns how many groups some of the fields tell apart."""
    places = [fields.index(field) for field in chosen]
    return len({tuple(key[place] for place in places) for key in keys})


def _key(value):
    """Returns what stands for a config value in a set: NaN equals itself, a list is a tuple."""
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple(sorted((name, _key(item)) for name, item in value.items()))
    if isinstance(value, float) and math.isnan(value):
        return 'NaN'
    return (value, True) if isinstance(value, bool) else value
