"""A table that scripts sort, filter and copy."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from neptune_jax.reporting.page.markup import Markup, breakable, escape, join, tag

MAX_SIZE = 130_000  # characters of a table
MAX_EXACT = 300  # rows of a table that also has all digits of its numbers
_MIN_FILTERED = 8  # rows
_HEAD_LENGTH = 16  # characters of a column's name that is not broken


class Cell:
    """A cell of a table: what is shown, and the value by which rows are sorted and copied."""

    __slots__ = ('content', 'is_number', 'value')

    def __init__(self, content: Any, value: Any, is_number: bool = False) -> None:
        self.content, self.value, self.is_number = content, value, is_number


def table(
    key: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    note: str = '',
    class_: str = 'table tall',
    limit: int = MAX_SIZE,
) -> Markup:
    """Returns a table with what filters and copies it; the first cell of a row is its header.

    Args:
        key: names the table in the page.
        head: the names of the columns.
        rows: of cells. A value that says more than the cell shows goes with it.
        note: under the table.
        class_: of the box around the table.
        limit: of its characters; the last rows are left out.
    """
    rows, label = list(rows), key.capitalize()
    key = f'table-{key}'  # sections have names too
    numeric = [any(row[column].is_number for row in rows) for column in range(len(head))]
    titles = (
        tag(
            'th',
            breakable(text) if len(text) > _HEAD_LENGTH else text,
            scope='col',
            class_='n' if right else None,
        )
        for text, right in zip(head, numeric, strict=True)
    )
    # Optional end tags are left out, and the columns of numbers have their classes at the table: a
    # thousand rows have ten thousand cells.
    exact = len(rows) <= MAX_EXACT
    lines = [f'<tr>{_row(row, exact)}' for row in rows]
    ends = itertools.accumulate(map(len, lines))
    kept = sum(end <= limit for end in ends)
    if kept < len(rows):
        note = f'The first {kept:,} of {len(rows):,} rows; --format=csv has all. {note}'
    body = Markup(''.join(lines[:kept]))
    classes = ' '.join(f'n{column + 1}' for column, right in enumerate(numeric) if right)
    filters = (
        tag('label', 'Filter', tag('input', type='search', size=16, data_filter=key)),
        tag('span', data_count=key, class_='quiet', role='status'),
    )
    tools = tag(
        'div',
        *(filters if len(rows) > _MIN_FILTERED else ()),
        tag('span', class_='gap'),
        *(
            tag('button', f'Copy {form}', type='button', data_copy=key, data_form=form)
            for form in ('Markdown', 'LaTeX', 'CSV')
        ),
        class_='tools',
        hidden=True,
    )
    content = tag(
        'table',
        tag('thead', tag('tr', *titles)),
        tag('tbody', body),
        id=key,
        class_=classes or None,
    )
    box = tag('div', content, class_=class_, tabindex=0, role='region', aria_label=label)
    return join((tools, box, tag('p', note, class_='quiet') if note else None))


def _row(cells: Sequence[Cell], exact: bool) -> str:
    return ''.join(
        f'{"<td" if column else "<th scope=row"}{_data(cell, column, exact)}>{escape(cell.content)}'
        for column, cell in enumerate(cells)
    )


def _data(cell: Cell, column: int, exact: bool) -> str:
    """Returns the attribute with the value of a cell, where it says more than its text."""
    if isinstance(cell.value, float) and math.isfinite(cell.value) and exact:
        text = f'{cell.value:.6g}'
        return '' if text == cell.content else f' data-v={text}'
    if isinstance(cell.value, str) and isinstance(cell.content, Markup) and column and cell.value:
        return f' data-v="{escape(cell.value)}"'
    return ''


def alignment_css() -> str:
    """Returns the rules of the columns of numbers: n2 to n20."""
    selectors = ','.join(f'.n{place}>tbody>tr>:nth-child({place})' for place in range(2, 21))
    return selectors + '{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}'
