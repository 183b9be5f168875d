"""Names of classes as a figure shows them: any characters, at most so many of them."""

import functools
import unicodedata
from typing import Any

_LEFT_TO_RIGHT = '\u200e'
# Fonts for what Matplotlib's own does not have, tried in this order if they are installed.
_FALLBACK_FONTS = (
    'Noto Sans',
    'Noto Sans CJK SC',
    'Noto Sans CJK JP',
    'Noto Sans SC',
    'Noto Sans JP',
    'Noto Sans KR',
    'WenQuanYi Zen Hei',
    'PingFang SC',
    'Hiragino Sans',
    'Apple SD Gothic Neo',
    'Microsoft YaHei',
    'Yu Gothic',
    'Malgun Gothic',
    'Noto Sans Arabic',
    'Noto Sans Hebrew',
    'Noto Sans Devanagari',
    'Noto Sans Thai',
    'Noto Emoji',
    'Symbola',
    'Segoe UI Emoji',
    'Arial Unicode MS',
)


def shown(name: str, limit: int, number: int | None = None) -> str:
    """Returns a name for a figure.

    A name of more than `limit` columns loses its middle, where an ellipsis stands. Line breaks and
    other control characters become escapes, such as \\n.

    Args:
        name: of a class.
        limit: columns; a Chinese, Japanese or Korean character has two.
        number: of the class. It stands before a name that the fonts cannot show completely.
    """
    text = ''.join(map(_printable, name))
    is_complete = all(map(_has_glyph, text))
    if columns(text) > limit:
        start, end = list(text), list(text)
        while columns(start) > limit // 2:
            start.pop()
        while columns(end) > limit - 1 - columns(start):
            end.pop(0)
        text = f'{"".join(start)}…{"".join(end)}'
    if any(unicodedata.bidirectional(character) in ('R', 'AL') for character in text):
        # Without these marks, a number beside the name would change sides.
        text = f'{_LEFT_TO_RIGHT}{text}{_LEFT_TO_RIGHT}'
    return text if is_complete or number is None else f'{number}: {text}'


def columns(text: Any) -> int:
    """Returns the width of a text in columns, as on a terminal."""
    return sum(1 + (unicodedata.east_asian_width(character) in 'WF') for character in text)


def style() -> dict[str, Any]:
    """Returns the arguments of a Matplotlib text that may hold a name: no formulas, more fonts."""
    return {'parse_math': False, 'family': _families()}


def _printable(character):
    if unicodedata.category(character) in ('Cc', 'Cs', 'Zl', 'Zp'):
        return character.encode('unicode_escape').decode()
    return character


def _has_glyph(character):
    return unicodedata.category(character) in ('Cf', 'Mn') or any(
        font.get_char_index(ord(character)) for font in _fonts()
    )


@functools.cache
def _families():
    """Returns the fonts of the person's Matplotlib, and those above that are installed."""
    import matplotlib
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    own = matplotlib.rcParams['font.family']
    return [*own, *(name for name in _FALLBACK_FONTS if name in installed)]


@functools.cache
def _fonts():
    from matplotlib import font_manager

    properties = [font_manager.FontProperties(family=[name]) for name in _families()]
    return [font_manager.get_font(font_manager.findfont(each)) for each in properties]
