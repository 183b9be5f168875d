"""What a field of a config may hold, and the check of a value.

defaults.py has a Field for each field of a config; the networks of models/ have one for each of
their own (`of_module`).
"""

import dataclasses
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from neptune_jax.errors import UserError

IMPORT = "'package.module:name'"

_KINDS = {
    bool: 'True or False',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: 'a tuple',
    dict: 'a group of fields',
}


class Field(NamedTuple):
    """A field of a config. For a tuple, what it says of values holds for each element."""

    default: Any  # None for a field that may be unset
    description: str  # one line
    interval: str = ''  # the numbers it may hold: '[0, 1)' includes 0 and excludes 1
    choices: tuple[str, ...] = ()  # the texts it may hold
    or_form: str = ''  # what else it may hold; a text of this form has a colon
    units: str = ''  # of a length of training, such as '2 epochs'; the interval is of its number
    kind: type | None = None  # its type where the default does not tell
    elements: type | None = None  # the type of the elements of a tuple
    sizes: tuple[int, ...] = ()  # how many elements a tuple may have; (): any number

    @property
    def type(self) -> type:
        """The Python type of its values."""
        return self.kind or type(self.default)

    @property
    def largest(self) -> float:
        """The end of its interval."""
        return _number(self.interval[1:-1].split(', ')[1])

    @property
    def range(self) -> str:
        """The values it may hold, for a reader; '' for any value of its type."""
        parts = [', '.join(map(repr, self.choices)), '' if self.units else self.interval]
        if self.units:
            above = ', above 0' if self.interval.startswith('(') else ''
            parts.append(f'a length{above}: {_examples(self.units)}')
        text = ' or '.join(filter(None, (*parts, self.or_form)))
        sizes = ' or '.join(map(str, self.sizes))
        return f'{sizes} of {text}' if sizes else f'each {text}' if self.elements and text else text


def of_module(
    default: Any, interval: str = '', choices: tuple[str, ...] = (), elements: type | None = None
) -> Any:
    """Returns a field of a Flax module with the values that it may hold, for `check_module`."""
    field = Field(default, '', interval, choices, elements=elements)
    return dataclasses.field(default=default, metadata={'field': field})


def check_module(module: Any) -> None:
    """Raises UserError, naming the field, if a field of a Flax module is out of its range."""
    for field in dataclasses.fields(module):
        if 'field' in field.metadata:
            check(f'model.{field.name}', field.metadata['field'], getattr(module, field.name))


def check(name: str, field: Field, value: Any) -> None:
    """Raises UserError, naming the field, unless it may hold the value."""
    if value is None and field.default is None:
        return
    _check_type(name, field.type, value)
    if field.type is not tuple:
        _check_value(name, field, value)
        return
    if field.sizes and len(value) not in field.sizes:
        sizes = ' or '.join(map(str, field.sizes))
        raise UserError(f'{name}={_shown(value)} must have {sizes} elements')
    for number, element in enumerate(value):
        if field.elements:
            _check_type(f'{name}[{number}]', field.elements, element)
        _check_value(f'{name}[{number}]', field, element)


def parse_length(name: str, text: str, units: str) -> tuple[float, str]:
    """Returns a length such as '2 epochs' as (2.0, 'epoch').

    Args:
        name: of the field, for the error message.
        text: a number and a unit. A final s of the unit may be left out.
        units: the units that it may have, with blanks between them.

    Raises:
        UserError: it is none.
    """
    names = '|'.join(re.sub('s$', 's?', re.escape(unit)) for unit in units.split())
    match = re.fullmatch(rf'\s*([0-9]+(?:\.[0-9]+)?)\s*({names})\s*', str(text))
    if not match:
        raise UserError(f'{name}={_shown(text)} is not a length; write it like {_examples(units)}')
    return float(match[1]), match[2].rstrip('s')


def _examples(units):
    examples = ['60 seconds', '500 steps', '2 epochs', '10000 examples', '5%']
    *rest, last = [repr(text) for text in examples if re.sub('[0-9 ]', '', text) in units.split()]
    return f'{", ".join(rest)} or {last} of the run'


def _check_type(name, kind, value):
    kinds = {float: (int, float), tuple: (tuple, list), dict: ConfigDict}.get(kind, kind)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise UserError(
            f'{name}={_shown(value)} must be {_KINDS[kind]}, not {type(value).__name__}'
        )
    if kind is str and '\0' in value:
        raise UserError(f'{name}={_shown(value)} holds a NUL character, which no text may')


def _check_value(name, field, value):
    if field.units:
        number, _ = parse_length(name, value, field.units)
        if not _is_inside(number, field.interval):
            raise UserError(f'{name}={_shown(value)}: the number {_bounds(field.interval)}')
    elif field.choices or field.or_form:
        if value not in field.choices and not (field.or_form and ':' in value):
            known = ', '.join(choice for choice in field.choices if choice)
            ways = (known and f'choose one of: {known}', field.or_form and f'write {field.or_form}')
            hint = '; or '.join(filter(None, ways))
            raise UserError(f'{name}={_shown(value)} is unknown; {hint}')
    elif field.interval and not _is_inside(value, field.interval):
        raise UserError(f'{name}={_shown(value)} {_bounds(field.interval)}')


def _is_inside(value, interval):
    """Whether a number is in an interval; NaN is in none."""
    low, high = map(_number, interval[1:-1].split(', '))
    above = value >= low if interval[0] == '[' else value > low
    return above and (value <= high if interval[-1] == ']' else value < high)


def _bounds(interval):
    low, high = interval[1:-1].split(', ')
    if interval[0] == '[' and interval[-1] == ']' and high != 'inf':
        return f'must be from {low} to {high}'
    above = f'at least {low}' if interval[0] == '[' else f'above {low}'
    if high == 'inf':
        return f'must be {above}' + (' and finite' if interval[-1] == ')' else '')
    return f'must be {above} and ' + ('at most' if interval[-1] == ']' else 'below') + f' {high}'


def _number(text):
    base, _, power = text.partition('**')
    return float(base) ** float(power or 1)


def _shown(value):
    """Returns a value as a message shows it: on one line, and not longer than a line."""
    try:
        text = ' '.join(repr(value).split())
    except Exception:  # an object of the user's, or more digits than Python prints
        text = f'({type(value).__name__})'
    return text if len(text) <= 200 else f'{text[:80]} ... {text[-20:]} ({len(text)} characters)'
