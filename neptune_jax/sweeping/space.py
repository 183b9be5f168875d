"""What a sweep varies: grids, points of get_sweep(), and the space of a search."""

import ast
import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from neptune_jax import defaults, models
from neptune_jax.errors import UserError, one_line
from neptune_jax.runs import files, writer

Overrides = dict[str, Any]  # fields of a config, by their full names, and their values

LONGEST_NAME = 100  # characters of a trial's name
_LONGEST_VALUE = 30
_MOST_POINTS = 100_000  # of a grid
_EXAMPLE = '--grid=optim.learning_rate=0.01,0.03 or --grid=seed=0:5'
_SEARCH_EXAMPLE = (
    '--search=optim.learning_rate=log:1e-4:1, --search=optim.momentum=0.8:0.99 or '
    '--search=model.activation=relu,gelu'
)


# ------------------------------------------------------------------------------------------- grids
def grid(texts: Sequence[str], base: ConfigDict) -> list[Overrides]:
    """Returns the points of a grid, [{}] if there is none. The last field varies fastest.

    Args:
        texts: of each field 'FIELD=VALUE,VALUE' or, for whole numbers, 'FIELD=FROM:TO' without TO.
        base: the config, which tells the types of the values.

    Raises:
        UserError: an unknown field, a value of another type, or the same field twice.
    """
    axes: dict[str, list] = {}
    for text in texts:
        name, values = _field(text, base, '--grid', _EXAMPLE)
        if name in axes:
            raise UserError(f'--grid={text}: {name} is given twice; list all its values in one')
        axes[name] = [
            value for part in _split(values) for value in _grid_values(name, part, base, text)
        ]
    if math.prod(map(len, axes.values())) > _MOST_POINTS:
        raise UserError(f'--grid: these are more than {_MOST_POINTS:,} trials')
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _grid_values(name, part, base, text):
    whole = re.fullmatch(r'(-?\d+):(-?\d+)', part)
    if whole and _kind(name, base) is int:
        first, end = map(int, whole.groups())
        if not 0 < end - first <= _MOST_POINTS:
            raise UserError(f'--grid={text}: {part} must go up, and not to more than a few values')
        return range(first, end)
    return [_value(name, part, base, f'--grid={text}')]


def combine(points: Iterable[Overrides], more: Sequence[Overrides]) -> list[Overrides]:
    """Returns each point with each of `more`, whose values count where both set a field."""
    return [point | other for point in points for other in more]


# ---------------------------------------------------------------------------------------- searches
@dataclasses.dataclass(frozen=True)
class Dimension:
    """A field that a search varies: over choices, or from `low` to `high`."""

    name: str
    text: str  # as the command line has it, without the name
    kind: type
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: dict[str, Any] = dataclasses.field(default_factory=dict)  # values by their texts

    @property
    def is_whole(self) -> bool:
        """Whether its values are the whole numbers from `low` to `high`."""
        return self.kind is int and not self.choices

    @property
    def count(self) -> float:
        """The number of its values."""
        return len(self.choices) or (self.high - self.low + 1 if self.is_whole else math.inf)

    def at(self, u: float) -> Any:
        """Returns the value at a place in [0, 1) of its range; a choice as its text."""
        if self.choices:
            return list(self.choices)[int(u * len(self.choices))]
        half = 0.5 if self.is_whole else 0.0  # so that each whole number has its share
        low, high = self.low - half, self.high + half
        if self.log:
            value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        else:
            value = low + u * (high - low)
        if self.is_whole:
            value = round(value)
        return self.kind(min(max(value, self.low), self.high))

    def value(self, param: Any) -> Any:
        """Returns the value of the field for what a sampler or `at` gives."""
        return self.choices[param] if self.choices else self.kind(param)

    def extremes(self) -> list:
        """Returns values such that, where the config may hold them, it may hold the others."""
        return list(self.choices.values()) or [self.kind(self.low), self.kind(self.high)]


def search(texts: Sequence[str], base: ConfigDict) -> list[Dimension]:
    """Returns the dimensions of a search.

    Args:
        texts: of each field 'FIELD=LOW:HIGH', 'FIELD=log:LOW:HIGH' or 'FIELD=CHOICE,CHOICE'.
        base: the config, which tells the types of the values.

    Raises:
        UserError: an unknown field, a range or a value that cannot be, or the same field twice.
    """
    found: dict[str, Dimension] = {}
    for text in texts:
        name, values = _field(text, base, '--search', _SEARCH_EXAMPLE)
        if name in found:
            raise UserError(f'--search={text}: {name} is given twice')
        kind = _kind(name, base)
        bounds = re.fullmatch(r'(log:)?([^:]+):([^:]+)', values)
        if bounds and kind in (int, float):
            low, high = (
                _value(name, part, base, f'--search={text}') for part in bounds.groups()[1:]
            )
            log = bool(bounds[1])
            if not -math.inf < low < high < math.inf or (log and low <= 0):
                above = ', above 0' if log else ''
                raise UserError(f'--search={text}: the range must go up{above}, and end')
            found[name] = Dimension(name, values, kind, low, high, log)
        else:
            choices = {
                part: _value(name, part, base, f'--search={text}') for part in _split(values)
            }
            if len(choices) < 2:
                raise UserError(
                    f'--search={text}: give a range or choices, as in {_SEARCH_EXAMPLE}'
                )
            found[name] = Dimension(name, values, kind, choices=choices)
    return list(found.values())


def corners(dimensions: Sequence[Dimension]) -> list[Overrides]:
    """Returns points whose check finds each value that the config cannot hold."""
    middle = {each.name: each.extremes()[0] for each in dimensions}
    return [middle | {each.name: value} for each in dimensions for value in each.extremes()]


# ----------------------------------------------------------------------------------------- configs
def resolve(base: ConfigDict, overrides: Overrides) -> ConfigDict:
    """Returns the config of a trial, as the command line of its training will make it.

    Args:
        base: the config of the sweep, as the command line gives it.
        overrides: the fields that the trial sets.

    Raises:
        UserError: an unknown field, or a value of another type.
    """
    config = base.copy_and_resolve_references()
    with config.unlocked():
        if any(name.startswith('model.') and name[6:] not in config.model for name in overrides):
            config.model = models.complete_fields(config.model)
        for name, value in overrides.items():
            _set(config, name, value)
        config.model = models.complete_fields(config.model)
    return config


def _set(config, name, value):
    group, _, field = name.rpartition('.')
    parent = config
    for part in filter(None, group.split('.')):
        parent = parent.get(part) if isinstance(parent, ConfigDict) else None
    if not isinstance(parent, ConfigDict) or field not in parent:
        raise UserError(f'there is no field {name}; docs/configs.md has all fields')
    if isinstance(parent[field], ConfigDict) or isinstance(value, Mapping):
        raise UserError(f'{name} is a group; set its fields one by one')
    if value is None and parent[field] is not None:
        raise UserError(f'{name}=None cannot be given on a command line; leave the field out')
    if isinstance(value, list):
        value = tuple(value)
    try:
        parent[field] = value
    except (TypeError, ValueError) as error:
        raise UserError(f'{name}={value!r}: {one_line(error)}') from error


def identity(config: ConfigDict) -> str:
    """Returns a text that is the same for configs whose runs have the same results."""
    return files.dumps(dict(sorted(writer.decisive_fields(config.to_dict()).items())))


def argument(name: str, value: Any) -> str:
    """Returns the argument of a command line that sets a field."""
    if isinstance(value, list | tuple):
        value = tuple(value)
    return f'--config.{name}={value}'


# ------------------------------------------------------------------------------------------- names
def names(points: Sequence[Overrides], base: ConfigDict, taken: Iterable[str]) -> list[str]:
    """Returns a name for each point: the fields that differ between them, and their values.

    Args:
        points: of different configs.
        base: the config that has the values of fields that a point does not set.
        taken: names of other trials.
    """
    flat = files.flatten(base.to_dict(), '.')
    fields = list(dict.fromkeys(name for point in points for name in point))
    differing = [
        name
        for name in fields
        if len({repr(point.get(name, flat.get(name))) for point in points}) > 1
    ]
    found, used = [], set(taken)
    for point in points:
        short = {name: point[name] for name in differing if name in point}
        for name in (_name(short), _name(point), _with_hash(_name(point), point)):
            if name not in used and name:
                break
        used.add(name)
        found.append(name)
    return found


def _name(point):
    parts, exact = [], True
    for name, value in point.items():
        text = 'x'.join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        safe = re.sub(r'[^\w.+=-]', '-', text, flags=re.ASCII)[:_LONGEST_VALUE]
        exact &= safe == text
        parts.append(f'{name}={safe}')
    name = ','.join(parts)
    return name if exact and len(name) <= LONGEST_NAME else _with_hash(name, point)


def _with_hash(name, point):
    digest = hashlib.sha256(files.dumps(dict(sorted(point.items()))).encode()).hexdigest()[:8]
    return f'{name[: LONGEST_NAME - 9]}-{digest}'.lstrip('-')


# ----------------------------------------------------------------------------------------- parsing
def _field(text, base, flag, example):
    name, equals, values = text.partition('=')
    if not equals or not values:
        raise UserError(f'{flag}={text} names no values; write {example}')
    try:
        _kind(name, base)
    except KeyError:
        raise UserError(
            f'{flag}={text}: there is no field {name!r}; docs/configs.md has all fields'
        ) from None
    return name, values


def _kind(name: str, base: ConfigDict) -> type:
    """Returns the type of a field's values. Raises KeyError if there is no such field."""
    if name in defaults.FIELDS:
        return defaults.FIELDS[name].type
    if name.startswith('model.'):
        return type(models.complete_fields(base.model)[name.removeprefix('model.')])
    return type(files.flatten(base.to_dict(), '.')[name])


def _split(text):
    """Returns what the commas outside of brackets and quotes separate."""
    parts = re.findall(r"""(?:\([^)]*\)|'[^']*'|"[^"]*"|[^,('"]|[('"])+""", text)
    return [part.strip() for part in parts]


def _value(name, text, base, where):
    kind = _kind(name, base)
    try:
        if kind is bool:
            return {'true': True, 'false': False}[text.lower()]
        if kind in (int, float):
            return kind(text)
        if kind is type(None):  # a network's own field that may be unset
            return ast.literal_eval(text)
        if kind is tuple:
            value = ast.literal_eval(text)
            return tuple(value) if isinstance(value, list | tuple) else (value,)
        if kind is str:
            quoted = re.fullmatch(r"""(['"])(.*)\1""", text)
            return quoted[2] if quoted else text
    except (ValueError, KeyError, SyntaxError):
        pass
    wanted = {bool: 'True or False', int: 'a whole number', float: 'a number', tuple: 'a tuple'}
    what = wanted.get(kind, 'a text')
    raise UserError(f'{where}: {text!r} is no value of {name}, which holds {what}')
