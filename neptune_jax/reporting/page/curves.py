"""Learning curves: one line a run, or the mean of a group in the band of its runs.

The charts are drawn here for readers without scripts. curves.js draws them again from the same
points, with the axes, the smoothing and the runs that a reader chooses.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, join, shorten, tag, visible
from neptune_jax.reporting.page.views import View, mark
from neptune_jax.reporting.run_record import Record

PANELS = {
    'val/accuracy': 'Validation accuracy',
    'val/loss': 'Validation loss',
    'train/accuracy': 'Training accuracy',
    'train/loss': 'Training loss',
    'train/learning_rate': 'Learning rate',
    'train/grad_norm': 'Norm of the gradient',
}
MAX_RUNS, MANY_RUNS = 40, 16  # that are drawn, of up to 100 and of more runs
POINTS, MANY_POINTS = 5_000, 2_000  # of all curves of a page together, likewise
_MAX_POINTS = 300  # of a curve


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A run whose curves are drawn.

    Attributes:
        record: of the run.
        group: the place of its group.
        epoch: its steps in an epoch; 0 if that is unknown.
        curves: (step, value) by key.
    """

    record: Record
    group: int
    epoch: float
    curves: Mapping[str, list[tuple[int, float]]]


def choose(view: View) -> list[Drawn]:
    """Returns the runs that are drawn, with thinned curves: those of the first groups."""
    is_many = len(view.runs) > 100
    members = [
        (place, record)
        for place, each in enumerate(view.groups)
        for record in each.records
        if record.rows
    ][: MANY_RUNS if is_many else MAX_RUNS]
    found = [
        {key: points for key in PANELS if (points := _numbers(record.series(key)))}
        for _, record in members
    ]
    sizes = [len(points) for curves in found for points in curves.values()]
    limit = _limit(sizes, MANY_POINTS if is_many else POINTS)
    drawn = []
    for (place, record), own in zip(members, found, strict=True):
        curves = {key: _thinned(points, limit) for key, points in own.items()}
        step, epochs = record.summary.get('step'), record.summary.get('epochs')
        epoch = step / epochs if step and epochs else 0.0
        drawn.append(Drawn(record, place, epoch, curves))
    return drawn


def section(view: View, drawn: Sequence[Drawn]) -> Markup | None:
    """Returns the charts, their legend and what changes them."""
    keys = [key for key in PANELS if any(key in each.curves for each in drawn)]
    if not keys:
        return None
    by_epoch = _differ_in_epochs(drawn)
    bands = view.has_seeds
    figures = [_figure(view, drawn, key, by_epoch, bands) for key in keys]
    note = None
    if len(view.runs) > len(drawn):
        text = f'{len(drawn):,} of {len(view.runs):,} runs: those of the best groups.'
        note = tag('p', text, class_='quiet')
    if bands:
        text = 'A line is the mean of a group; its band reaches from the lowest to the highest run.'
        note = join((note, tag('p', text, class_='quiet', data_bands=True)))
    shown = tag('div', *figures, class_='charts')
    return join((_controls(by_epoch, bands), _legend(view, drawn), note, shown))


def data(view: View, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Returns what curves.js draws the charts from, a JSON value.

    `steps` has each list of steps once; a curve is [run, its list of steps, values].
    """
    steps: dict[tuple[int, ...], int] = {}
    curves: dict[str, list] = {}
    for number, each in enumerate(drawn):
        for key, points in each.curves.items():
            own = tuple(step for step, _ in points)
            place = steps.setdefault(own, len(steps))
            curves.setdefault(key, []).append([number, place, [_rounded(y) for _, y in points]])
    shown = sorted({each.group for each in drawn})
    return {
        'groups': {
            place: [shorten(visible(view.label(place)), 80), view.color(place)] for place in shown
        },
        'runs': [
            [shorten(visible(view.short_name(each.record)), 80), each.group, round(each.epoch, 4)]
            for each in drawn
        ],
        'steps': list(map(list, steps)),
        'curves': curves,
    }


def _figure(view: View, drawn: Sequence[Drawn], key: str, by_epoch: bool, bands: bool) -> Markup:
    title = PANELS[key]
    series: list[charts.Line] = []
    for place in reversed(range(len(view.groups))):  # the best one lies on top
        own = [run for run in drawn if run.group == place and key in run.curves]
        if not own:
            continue
        color = view.color(place)
        scaled = [_scaled(run.curves[key], run.epoch if by_epoch else 0) for run in own]
        if bands:
            series.append(_band(view.label(place), color, scaled))
        else:
            names = [view.short_name(run.record) for run in own]
            series += [charts.Line(n, color, own) for n, own in zip(names, scaled, strict=True)]
    x_label = 'epoch' if by_epoch else 'step'
    ends = ', '.join(f'{line.label}: {line.points[-1][1]:.4g}' for line in reversed(series[-8:]))
    description = f'Against the {x_label}. Last values: {ends}.'
    return tag(
        'figure',
        tag('figcaption', tag('b', title), f' {key}' if title != key else None),
        charts.lines(series, title, description, x_label),
        data_curve=key,
    )


def _band(
    label: str, color: int | None, curves: Iterable[Sequence[tuple[float, float]]]
) -> charts.Line:
    """Returns the line of the means of some curves, in the band of their values."""
    found: dict[float, list[float]] = {}
    curves = list(curves)
    for points in curves:
        for x, y in points:
            if math.isfinite(y):
                found.setdefault(x, []).append(y)
    ordered = sorted(found.items())
    return charts.Line(
        label,
        color,
        [(x, math.fsum(values) / len(values)) for x, values in ordered] or [(0.0, math.nan)],
        [(x, min(values), max(values)) for x, values in ordered] if len(curves) > 1 else [],
    )


def _controls(by_epoch: bool, bands: bool) -> Markup:
    axes = (
        tag('option', f'by {each}', value=each, selected=(each == 'epoch') == by_epoch)
        for each in ('step', 'epoch')
    )
    shown = (
        tag('option', text, value=each, selected=(each == 'groups') == bands)
        for each, text in (('groups', 'bands of groups'), ('runs', 'a line a run'))
    )
    smooth = tag('input', type='range', min=0, max=0.98, step=0.02, value=0, data_set='smooth')
    return tag(
        'div',
        tag('select', *axes, data_set='x', aria_label='Horizontal axis'),
        tag('select', *shown, data_set='show', aria_label='Lines') if bands else None,
        tag('label', tag('input', type='checkbox', data_set='logX'), 'log x'),
        tag('label', tag('input', type='checkbox', data_set='logY'), 'log y'),
        tag('label', 'smoothing', smooth, tag('output', '0', class_='n')),
        class_='tools',
        hidden=True,
        id='curve-tools',
    )


def _legend(view: View, drawn: Sequence[Drawn]) -> Markup | None:
    places = sorted({each.group for each in drawn})
    if len(places) < 2:
        return None
    colored = [place for place in places if view.color(place) is not None]
    items = [
        tag('li', tag('span', mark(view.color(place), view.label(place)), data_group=place))
        for place in colored
    ]
    if len(places) > len(colored):
        items.append(tag('li', mark(None, f'{len(places) - len(colored):,} other groups')))
    return tag('ul', *items, class_='legend', aria_label='Groups')


def _differ_in_epochs(drawn: Sequence[Drawn]) -> bool:
    """Whether steps are of different lengths, so that epochs compare better."""
    lengths = {round(each.epoch, 3) for each in drawn}
    return len(lengths) > 1 and all(lengths)


def _numbers(points: Iterable[tuple[int, Any]]) -> list[tuple[int, float]]:
    return [(step, float(y)) for step, y in points if isinstance(y, int | float)]


def _limit(sizes: Sequence[int], total: int) -> int:
    """Returns how many points a curve may have, so that all of them have no more than a total."""
    limit, left = _MAX_POINTS, total
    for place, size in enumerate(sorted(sizes)):
        limit = left // (len(sizes) - place)
        left -= min(size, limit)
    return max(2, min(limit, _MAX_POINTS))


def _thinned(points: list[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    """Returns at most about `limit` points, evenly chosen, with the first and the last one."""
    if len(points) <= limit:
        return points
    last = len(points) - 1
    return [points[round(place * last / (limit - 1))] for place in range(limit)]


def _scaled(points: Sequence[tuple[int, float]], epoch: float) -> list[tuple[float, float]]:
    return [(step / epoch if epoch else float(step), y) for step, y in points]


def _rounded(value: float) -> float | None:
    return float(f'{value:.4g}') if math.isfinite(value) else None
