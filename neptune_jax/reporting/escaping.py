"""Texts from configs, files and classes as Markdown, LaTeX, CSV and a terminal show them."""

import re
import unicodedata

# Characters that turn the direction of what follows, so that a text looks like another.
_TURNS = set('\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')
_LATEX = {
    '\\': r'\textbackslash{}',
    '{': r'\{',
    '}': r'\}',
    '$': r'\$',
    '&': r'\&',
    '#': r'\#',
    '%': r'\%',
    '_': r'\_',
    '^': r'\textasciicircum{}',
    '~': r'\textasciitilde{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '"': r'\textquotedbl{}',
    "'": r'\textquotesingle{}',
    '`': r'\textasciigrave{}',
    '±': r'$\pm$',
    # After the end of a row these would belong to its command.
    '[': '{[}',
    ']': '{]}',
    '*': '{*}',
}


def plain(text: str) -> str:
    """Returns a text on one line; control characters become escapes such as \\n or \\x1b."""
    return ''.join(map(_printable, text))


def markdown(text: str) -> str:
    """Returns a text for a cell of a table in Markdown, in which nothing of it is markup."""
    escaped = re.sub(r'([\\`*\[\]{}|~#!$])', r'\\\1', plain(text))
    escaped = escaped.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    # Inside of words an underscore is no markup.
    escaped = re.sub(r'(?<!\w)_|_(?!\w)', r'\\_', escaped)
    # Neither an address nor a mention becomes a link.
    return re.sub(r'(?<=\w)://|(?<!\w)@|(?<=\w)@|(?<=www)\.', _broken, escaped)


def latex(text: str) -> str:
    """Returns a text in which nothing is a command of LaTeX."""
    escaped = ''.join(_LATEX.get(character, character) for character in plain(text))
    return escaped.replace('--', '-{}-').replace('--', '-{}-')  # else it becomes a dash


def csv(text: str) -> str:
    """Returns a text for a cell of a CSV file that no spreadsheet takes for a formula."""
    text = text.encode('utf-8', 'backslashreplace').decode()
    return f"'{text}" if text.startswith(('=', '+', '-', '@', '\t', '\r', '\n')) else text


def _printable(character):
    if unicodedata.category(character) in ('Cc', 'Cs', 'Zl', 'Zp') or character in _TURNS:
        return character.encode('unicode_escape', 'surrogatepass').decode('ascii')
    return character


def _broken(match):
    return ''.join(f'&#{ord(character)};' for character in match[0])
