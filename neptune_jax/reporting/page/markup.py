"""HTML and SVG as values: every text is escaped unless it is markup already."""

import html
import math
import re
from collections.abc import Iterable
from typing import Any

from neptune_jax.reporting import escaping

NAME_LENGTH = 80  # characters of a name that a page shows
_LINE_LENGTH = 40  # characters of a name that stays on one line, if the screen is wide
_VOID = frozenset('br hr img input link meta'.split())


class Markup(str):
    """A text that is markup: it is put into a page as it is."""

    __slots__ = ()


def tag(name: str, /, *content: Any, **attributes: Any) -> Markup:
    """Returns an element.

    Args:
        name: of the element, such as 'td'.
        *content: markup, or anything else, which is escaped; None is nothing.
        **attributes: `class_` is class, and `stroke_width` is stroke-width. None and False leave an
            attribute out; True is one without a value.
    """
    parts = [f'<{name}']
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip('_').replace('_', '-')
        parts.append(f' {key}' if value is True else f' {key}="{escape(value)}"')
    parts.append('>')
    if name not in _VOID:
        parts += [join(content), f'</{name}>']
    return Markup(''.join(parts))


def join(content: Iterable[Any], separator: str = '') -> Markup:
    """Returns contents one after another; what is no markup is escaped."""
    return Markup(separator.join(escape(each) for each in content if each is not None))


def escape(value: Any) -> str:
    """Returns a value as text that means itself in an element and in an attribute."""
    return value if isinstance(value, Markup) else html.escape(visible(str(value)))


def visible(text: str) -> str:
    """Returns a text in which escapes, such as \\n, stand for what cannot be seen."""
    return text if text.isascii() and text.isprintable() else escaping.plain(text)


def name(text: Any) -> Markup:
    """Returns a name that others chose: its direction changes nothing beside it.

    A long one loses its middle; the whole name is shown when the pointer rests on it.
    """
    text = visible(str(text))
    class_ = 'long' if len(text) > _LINE_LENGTH else None
    title = text[:1000] if len(text) > NAME_LENGTH else None
    return tag('bdi', breakable(shorten(text, NAME_LENGTH)), class_=class_, title=title)


def breakable(text: str) -> Markup:
    """Returns a text that may be broken behind the signs inside of names, paths and fields."""
    return Markup(re.sub(r'(?<=[.,=/])(?=\w{2})', '<wbr>', escape(text)))


def shorten(text: str, limit: int) -> str:
    """Returns a text of at most `limit` characters; a longer one loses its middle."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f'{text[:half]}…{text[len(text) - (limit - 1 - half) :]}'


def number(value: Any, digits: int = 4) -> str:
    """Returns a number with so many significant digits, such as 0.0015, 1e-05 or 12,345."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '–'
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f'{int(value):,}'
    if min(1000, 10**digits) <= abs(value) < 1e15:
        return f'{value:,.0f}'
    return re.sub(r'e([+-])0*(?=\d)', r'e\1', f'{value:.{digits}g}').replace('e+', 'e')


def fixed(value: float | None, places: int = 4) -> str:
    """Returns a number with so many decimal places, so that a column of them is aligned."""
    if value is None or math.isnan(value):
        return '–'
    return f'{value:.{places}f}'.replace('-', '−')


def signed(value: float, places: int = 4) -> str:
    """Returns a difference as `fixed` does, with its sign."""
    return f'+{fixed(value, places)}' if value > 0 else fixed(value, places)
