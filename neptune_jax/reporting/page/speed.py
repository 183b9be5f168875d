"""How fast the runs were, and how long they took."""

import math
from collections.abc import Sequence

from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, join, number, shorten, tag, visible
from neptune_jax.reporting.page.views import View

MAX_ROWS, MAX_NAMED = 20, 60  # groups; dots that have a name
_NAMES, _STEP, _TOP = 150, 20, 6
_FACTS = {'images_per_second': 'Throughput, images/s', 'train_seconds': 'Training time, seconds'}


def section(view: View) -> Markup | None:
    """Returns a row of dots for each group, a dot a run; None for a single run."""
    if view.is_single:
        return None
    figures = [_figure(view, key, title) for key, title in _FACTS.items()]
    shown = [each for each in figures if each]
    if not shown:
        return None
    note = None
    if len(view.groups) > MAX_ROWS:
        note = tag('p', f'The {MAX_ROWS} best of {len(view.groups):,} groups.', class_='quiet')
    return join((note, tag('div', *shown, class_='charts')))


def _figure(view: View, key: str, title: str) -> Markup | None:
    rows = []
    for place, each in enumerate(view.groups[:MAX_ROWS]):
        found = [(record, record.value(key)) for record in each.records]
        values = [(record, float(v)) for record, v in found if isinstance(v, int | float) and v > 0]
        if values:
            rows.append((place, view.label(place), values))
    if not rows:
        return None
    height = _TOP + _STEP * len(rows) + charts.BOTTOM
    everything = [value for _, _, values in rows for _, value in values]
    across = charts.axis([0.0, *everything], _NAMES, charts.WIDTH - charts.RIGHT, pad=0.0)
    across = charts.Axis(0.0, across.high * 1.03, across.start, across.end)
    up = charts.Axis(0, 1, height - charts.BOTTOM, _TOP)
    parts = [_frame(across, up)]
    for row, (place, label, values) in enumerate(rows):
        y = _TOP + _STEP * (row + 0.5)
        parts.append(
            _row(view, place, label, values, across, y, named=len(everything) <= MAX_NAMED)
        )
    mean = math.fsum(everything) / len(everything)
    description = f'A dot a run, a row a group. The mean of all runs is {number(mean, 3)}.'
    return tag(
        'figure',
        tag('figcaption', tag('b', title)),
        charts.svg(parts, title, description, height=height),
    )


def _frame(across: charts.Axis, up: charts.Axis) -> Markup:
    parts = []
    for value in across.ticks(4):
        x = charts.short(across(value))
        parts += [
            tag('path', d=f'M{x} {charts.short(up.end)}V{charts.short(up.start)}', class_='grid'),
            tag('text', number(value), x=x, y=charts.short(up.start + 16), class_='middle'),
        ]
    return tag('g', *parts, class_='frame', aria_hidden='true')


def _row(
    view: View,
    place: int,
    label: str,
    values: Sequence,
    across: charts.Axis,
    y: float,
    named: bool,
) -> Markup:
    text = tag('text', shorten(visible(label), 22), x=_NAMES - 8, y=charts.short(y), dy='.32em')
    circles = (
        tag(
            'circle',
            tag('title', f'{view.short_name(record)}: {number(value)}') if named else None,
            cx=charts.short(across(value)),
            cy=charts.short(y),
            r=3.5,
            fill_opacity=0.7,
        )
        for record, value in values
    )
    class_ = charts.color_class(view.color(place))
    return tag('g', tag('g', text, class_='end label'), *circles, class_=class_)
