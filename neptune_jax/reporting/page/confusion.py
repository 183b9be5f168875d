"""Confusion matrices: a table for a few classes, a picture for many; of two runs the difference."""

import base64
import io
from collections.abc import Sequence

import numpy as np

from neptune_jax.learning import metrics
from neptune_jax.reporting.page.markup import Markup, fixed, name, shorten, tag, visible
from neptune_jax.reporting.page.table import Cell, table
from neptune_jax.reporting.page.tested import Tested

MAX_TABLE = 24  # classes of a matrix that is a table
MAX_CELLS = 1000  # of a picture, in each direction
SHADES = 20
PAIRS = 100
_LEAST = 30  # of 127: the strength of the smallest share
_MORE, _LESS = (74, 134, 216), (214, 116, 48)


def matrices(tests: Sequence[Tested]) -> list[Markup]:
    """Returns the matrix of the first run, and the difference of two."""
    first = tests[0]
    title = tag('h3', 'Confusion of A' if len(tests) > 1 else 'Confusion')
    text = tag('p', 'Rows are labels, columns are predictions, shades are shares of the label.')
    found = [tag('div', title, text, _matrix(first.confusion, first.classes, key='confusion'))]
    if len(tests) > 1:
        difference, of = first.confusion - tests[1].confusion, first.confusion.sum(axis=1)
        moved = int(np.abs(difference).sum()) // 2
        text = tag('p', f'Blue: more images of A. Orange: more of B. {moved:,} images differ.')
        matrix = _matrix(difference, first.classes, key='difference', of=of)
        found.append(tag('div', tag('h3', 'Confusion, A − B'), text, matrix))
    return found


def shades_css() -> str:
    """Returns the rules of the shades of cells: s1 to s20 and, below zero, t1 to t20."""
    rule = '.%s%d{background:color-mix(in srgb,var(--c%d) %g%%,var(--panel))}'
    return ''.join(
        rule % (letter, shade, color, shade * 2.5)
        for letter, color in (('s', 0), ('t', 1))
        for shade in range(1, SHADES + 1)
    )


def _matrix(
    counts: np.ndarray, classes: Sequence[str], key: str, of: np.ndarray | None = None
) -> Markup:
    """Returns a matrix of counts, or of differences; `of` int[K] are the images of each label."""
    of = counts.sum(axis=1) if of is None else of
    shares = counts / np.maximum(of, 1)[:, None]
    if len(classes) > MAX_TABLE:
        return _picture(shares, classes, key)
    limit = 1.0 if key == 'confusion' else max(0.02, float(np.abs(shares).max()))
    head = tag('tr', tag('td'), *(tag('th', name(each), scope='col') for each in classes))
    rows = []
    for label, own in enumerate(counts):
        cells = []
        for column, count in enumerate(own.tolist()):
            shade = round(SHADES * (abs(shares[label, column]) / limit) ** 0.5)
            kind = ('s' if count > 0 else 't') + str(shade) if count and shade else None
            text = f'{count:,}' if key == 'confusion' else f'{count:+,}'.replace('-', '−')
            cells.append(tag('td', text if count else None, class_=kind))
        rows.append(tag('tr', tag('th', name(classes[label]), scope='row'), *cells))
    content = tag('table', tag('thead', head), tag('tbody', *rows))
    return tag('div', content, class_='table matrix', tabindex=0, role='region', aria_label=key)


def _picture(shares: np.ndarray, classes: Sequence[str], key: str) -> Markup:
    """Returns a picture of shares; with too many classes a cell is the largest of neighbours."""
    block = -(-len(shares) // MAX_CELLS)
    padded = np.pad(shares, (0, -len(shares) % block))
    cells = padded.reshape(len(padded) // block, block, -1, block)
    high, low = cells.max(axis=(1, 3)), cells.min(axis=(1, 3))
    largest = np.where(high >= -low, high, low)
    title = f'{key} of {len(classes):,} classes'
    size = len(largest)
    # Enlarged, a cell stays sharp; a matrix that has to shrink is averaged, so that it keeps them.
    image = tag(
        'img',
        src=_png(largest),
        alt=title,
        class_='pixels' if size < 500 else 'pixels smooth',
        width=size,
        height=size,
        data_matrix=True,
        data_block=block,
    )
    return tag('figure', image)


def _png(shares: np.ndarray) -> str:
    """Returns a picture of shares in [-1, 1] whose colours are transparent near 0."""
    from PIL import Image

    # The square root and the least strength make rare mistakes visible. pointer.js inverts this.
    strength = _LEAST + (127 - _LEAST) * np.abs(shares) ** 0.5
    levels = 128 + np.round(np.sign(shares) * strength)
    image = Image.fromarray(levels.astype(np.uint8))
    image.putpalette([part for level in range(256) for part in (_MORE if level >= 128 else _LESS)])
    alpha = bytes(min(255, 2 * abs(level - 128)) for level in range(256))
    file = io.BytesIO()
    image.save(file, 'PNG', transparency=alpha, optimize=True)
    return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'


def names_for_script(tests: Sequence[Tested]) -> list[str]:
    """Returns the names of the classes that the pointer shows on a picture; [] without one."""
    if not tests or len(tests[0].classes) <= MAX_TABLE:
        return []
    return [shorten(visible(each), 40) for each in tests[0].classes]


def pairs(tests: Sequence[Tested]) -> Markup:
    """Returns the table of the most frequent mistakes of the first run."""
    tested, who = tests[0], ' of A' if len(tests) > 1 else ''
    found = metrics.confused_pairs(tested.confusion, PAIRS)
    rows = [
        [
            Cell(name(tested.classes[label]), tested.classes[label]),
            Cell(name(tested.classes[prediction]), ''),
            Cell(f'{count:,}', count, is_number=True),
            Cell(fixed(share, 3), share, is_number=True),
        ]
        for label, prediction, count, share in found
    ]
    head = ['label', 'was predicted as', 'images', 'share of the label']
    listed = table('pairs', head, rows, class_='table tall tight')
    return tag('details', tag('summary', f'Most frequent mistakes{who}'), listed)
