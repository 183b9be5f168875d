"""Conditions on runs, as a person types them: optim.learning_rate<0.1 and status==finished.

    condition   = conjunction {'or' conjunction}
    conjunction = factor {('and' | ',') factor}
    factor      = 'not' factor | '(' condition ')' | field operator value
    operator    = '==' | '=' | '!=' | '<' | '<=' | '>' | '>='
    value       = scalar | '[' scalar {',' scalar} ']'
    scalar      = a number | True | False | None | a word | 'a text'

Nothing of a condition is executed.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from neptune_jax.errors import UserError

Condition = Callable[[Callable[[str], Any]], bool]  # takes the function from a field to its value

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<operator>==|!=|<=|>=|=|<|>)
  | (?P<sign>[()\[\],])
  | (?P<word>[^\s()\[\],=!<>'"]+)
  )""",
    re.VERBOSE,
)
_OPERATORS = {
    '==': operator.eq,
    '=': operator.eq,
    '!=': operator.ne,
    '<': operator.lt,
    '<=': operator.le,
    '>': operator.gt,
    '>=': operator.ge,
}
_WORDS = {'true': True, 'false': False, 'none': None, 'null': None}
_MAX_DEPTH = 50  # of parentheses


@dataclasses.dataclass(frozen=True)
class Expression:
    """A parsed condition.

    Attributes:
        fields: that it names, in their order.
        holds: takes a function from a field to its value, or to None; whether the condition holds.
    """

    fields: tuple[str, ...]
    holds: Condition


def parse(text: str, flag: str) -> Expression:
    """Returns the Expression of a text.

    Args:
        text: a condition.
        flag: that it was given to, such as '--where', for messages.

    Raises:
        UserError: it is none, or is too deep.
    """
    return _Parser(text, flag).parse()


class _Parser:
    """Reads a condition from left to right; each method reads what its name says."""

    def __init__(self, text: str, flag: str) -> None:
        self._text, self._flag = text, flag
        self._tokens = self._split()
        self._place, self._depth = 0, 0
        self._fields: list[str] = []

    def parse(self) -> Expression:
        holds = self._condition()
        if self._kind != 'end':
            self._fail(f'what is {self._token!r} after a complete condition?')
        return Expression(tuple(dict.fromkeys(self._fields)), holds)

    def _split(self):
        tokens, place = [], 0
        text = self._text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if not match:
                self._fail(f'{text[place:].split()[0][:20]!r} cannot be read')
            tokens.append((match.lastgroup, match[match.lastgroup]))
            place = match.end()
        return [*tokens, ('end', 'the end')]

    @property
    def _kind(self):
        return self._tokens[self._place][0]

    @property
    def _token(self):
        return self._tokens[self._place][1]

    def _next(self):
        token = self._token
        self._place += 1
        return token

    def _take(self, word):
        """Reads a certain word or sign, if it comes next."""
        found = self._kind in ('word', 'sign') and self._token.lower() == word
        self._place += found
        return found

    def _condition(self):
        parts = [self._conjunction()]
        while self._take('or'):
            parts.append(self._conjunction())
        return lambda value: any(part(value) for part in parts)

    def _conjunction(self):
        parts = [self._factor()]
        while self._take('and') or self._take(','):
            parts.append(self._factor())
        return lambda value: all(part(value) for part in parts)

    def _factor(self):
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail('it has too many parentheses')
        if self._take('not'):
            inner = self._factor()
            found = lambda value: not inner(value)  # noqa: E731
        elif self._take('('):
            found = self._condition()
            if not self._take(')'):
                self._fail(f'there is {self._token!r} where a ) is missing')
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self):
        if self._kind not in ('word', 'text'):
            self._fail(f'there is {self._token!r} where a field should be')
        field = _unquoted(self._next())
        if self._kind != 'operator':
            self._fail(
                f'after {field!r} there is {self._token!r} and none of {" ".join(_OPERATORS)}'
            )
        name = self._next()
        expected = self._value()
        self._fields.append(field)
        compare = _OPERATORS[name]
        is_order = name not in ('==', '=', '!=')

        def holds(value):
            found = value(field)
            if not is_order:
                return compare(_comparable(found), _comparable(expected))
            if found is None:  # nothing is above or below what a run does not have
                return False
            if _is_text(found) != _is_text(expected) or isinstance(found, list | dict):
                self._fail(
                    f'{field} is {found!r} in a run; that is neither above nor below {expected!r}'
                )
            return compare(found, expected)

        return holds

    def _value(self):
        if self._kind == 'sign' and self._token == '[':
            self._next()
            values = []
            while not self._take(']'):
                values.append(self._scalar())
                if not self._take(',') and self._token != ']':
                    self._fail(f'in a list there is {self._token!r} and no ] or comma')
            return values
        return self._scalar()

    def _scalar(self):
        if self._kind not in ('word', 'text'):
            self._fail(f'there is {self._token!r} where a value should be')
        is_text = self._kind == 'text'
        token = self._next()
        if is_text:
            return _unquoted(token)
        if token.lower() in _WORDS:
            return _WORDS[token.lower()]
        try:
            return float(token) if not re.fullmatch(r'[+-]?\d+', token) else int(token)
        except ValueError:
            return token

    def _fail(self, problem):
        text = self._text if len(self._text) <= 200 else f'{self._text[:200]} ...'
        raise UserError(
            f"{self._flag}={text}: {problem}; write it like 'optim.learning_rate<0.1 and "
            "status==finished'"
        )


def _unquoted(token):
    return re.sub(r'\\(.)', r'\1', token[1:-1]) if token[0] in '\'"' else token


def _is_text(value):
    return isinstance(value, str)


def _comparable(value):
    """Returns what `==` compares: NaN equals itself here, and True is not 1."""
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return 'NaN'
    return (value,) if isinstance(value, bool) else value
