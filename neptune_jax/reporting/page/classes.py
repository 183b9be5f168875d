"""The test in detail: reliability diagram, and precision and recall of each class."""

from collections.abc import Sequence

import numpy as np

from neptune_jax.learning import metrics
from neptune_jax.reporting import statistics
from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, fixed, join, name, signed, tag
from neptune_jax.reporting.page.table import Cell, table
from neptune_jax.reporting.page.tested import Tested
from neptune_jax.reporting.page.views import mark

_HEIGHT, _COUNTS = 320, 60  # of the whole diagram, and of the part that shows how many images


def legend(tests: Sequence[Tested]) -> Markup:
    """Returns which runs A and B are."""
    items = (
        tag('li', mark(each.color, f'{letter}: {each.name}'))
        for letter, each in zip('AB', tests, strict=True)
    )
    return tag('ul', *items, class_='legend', aria_label='Runs')


def reliability(tests: Sequence[Tested]) -> Markup:
    """Returns the accuracy of the images in each bin of confidence, and how many these are.

    Honest probabilities lie on the diagonal (Guo et al., 2017, figure 1). A vertical line is the
    95% interval of an accuracy (Wilson, 1927).
    """
    across = charts.Axis(0, 1, charts.LEFT, charts.WIDTH - charts.RIGHT)
    bottom = _HEIGHT - charts.BOTTOM
    up = charts.Axis(0, 1, bottom - _COUNTS - 12, 18)
    binned = [metrics.reliability(each.confidence, each.prediction == each.label) for each in tests]
    most = max(int(bins['count'].max()) for bins in binned)
    heights = charts.Axis(0, most, bottom, bottom - _COUNTS)
    corner = f'M{charts.short(across(0))} {charts.short(up(0))}'
    diagonal = f'{corner}L{charts.short(across(1))} {charts.short(up(1))}'
    parts = [
        _grid(across, up, heights),
        tag('g', tag('path', class_='line dashed', d=diagonal), class_='cx'),
    ]
    captions = []
    for each, bins in zip(tests, binned, strict=True):
        gaps = np.abs(bins['accuracy'] - bins['confidence'])
        ece = np.nansum(bins['count'] * gaps) / len(each.label)
        captions.append(f'ECE {fixed(float(ece))}')
        parts.append(_bins(bins, across, up, heights, place=each.color, of=len(tests)))
    text = ' and '.join(captions)
    return tag(
        'figure',
        tag('figcaption', tag('b', 'Reliability'), f' of the test, {text}'),
        charts.svg(
            parts,
            'Reliability diagram',
            f'Accuracy of the images by the confidence of the prediction, in 15 bins; {text}.',
            height=_HEIGHT,
        ),
    )


def _grid(across, up, heights):
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        y, x = charts.short(up(value)), charts.short(across(value))
        line = f'M{charts.short(across.start)} {y}H{charts.short(across.end)}'
        parts += [
            tag('path', d=line, class_='grid'),
            tag('text', f'{value:g}', x=charts.LEFT - 6, y=y, dy='.32em', class_='end'),
            tag('text', f'{value:g}', x=x, y=heights.start + 16, class_='middle'),
        ]
    below = f'{heights.start + 30}'
    parts.append(tag('text', 'confidence', x=across.end, y=below, class_='end label'))
    parts.append(tag('text', 'accuracy', x=across.start, y=10, class_='label'))
    axis = f'M{charts.short(across.start)} {charts.short(heights.start)}H{charts.short(across.end)}'
    parts.append(tag('path', d=axis, class_='axis'))
    return tag('g', *parts, class_='frame', aria_hidden='true')


def _bins(bins, across, up, heights, place, of):
    width = (across(1) - across(0)) / metrics.CALIBRATION_BINS
    own = (width - 2) / of
    shapes = []
    for number in np.flatnonzero(bins['count']):
        count, accuracy = int(bins['count'][number]), float(bins['accuracy'][number])
        low, high = statistics.wilson(round(accuracy * count), count)
        confidence = float(bins['confidence'][number])
        if not np.isfinite(confidence):  # of a network that has diverged
            continue
        text = f'confidence {confidence:.3f}, accuracy {accuracy:.3f}, {count:,} images'
        x, y = charts.short(across(confidence)), charts.short(up(accuracy))
        left = across(0) + number * width + 1 + place * own
        top = heights(count)
        bar = f'M{x} {charts.short(up(low))}V{charts.short(up(high))}'
        shapes += [
            tag('path', class_='whisker', d=bar),
            tag('circle', tag('title', text), class_='dot', cx=x, cy=y, r=3.5),
            tag(
                'rect',
                tag('title', f'{count:,} images'),
                class_='half',
                x=charts.short(left),
                y=charts.short(top),
                width=charts.short(own),
                height=charts.short(max(heights.start - top, 0.5)),
            ),
        ]
    return tag('g', *shapes, class_=charts.color_class(place))


def per_class(tests: Sequence[Tested]) -> Markup:
    """Returns the table of precision, recall and F1 of each class; of two runs with differences."""
    ratios = [metrics.per_class(each.confusion) for each in tests]
    first = ratios[0]
    head = ['class', 'images', 'precision', 'recall', 'F1']
    if len(tests) > 1:
        head = ['class', 'images', *(f'{what} {who}' for what in ('recall', 'F1') for who in 'AB')]
        head.append('F1, A − B')
    rows = []
    for number, label in enumerate(tests[0].classes):
        support = int(first['support'][number])
        cells = [Cell(name(label), label), Cell(f'{support:,}', support, is_number=True)]
        if len(tests) > 1:
            values = [each[key][number] for key in ('recall', 'f1') for each in ratios]
            values.append(first['f1'][number] - ratios[1]['f1'][number])
        else:
            values = [first[key][number] for key in ('precision', 'recall', 'f1')]
        forms = [fixed] * len(values) if len(tests) == 1 else [fixed] * 4 + [signed]
        cells += [
            Cell(form(float(value)), None, is_number=True)
            for form, value in zip(forms, values, strict=True)
        ]
        rows.append(cells)
    return join((tag('h3', 'Classes'), table('classes', head, rows, class_='table tall tight')))
