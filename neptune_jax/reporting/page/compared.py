"""The comparisons of groups: differences with intervals, tests, and what cannot be compared."""

import math
from collections.abc import Callable, Sequence

from neptune_jax.reporting import comparisons
from neptune_jax.reporting.comparisons import Comparison
from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, fixed, join, name, signed, tag
from neptune_jax.reporting.page.table import Cell, table
from neptune_jax.reporting.page.views import View

MAX_SHOWN = 60
_METHODS = {
    'paired': "paired by seed, Student's t",
    'welch': "independent, Welch's t",
    'mcnemar': 'McNemar, exact, on the test images',
}
_SCALE = 150


def section(view: View) -> Markup | None:
    """Returns the table of comparisons; None if nothing is compared."""
    if len(view.groups) < 2:
        return None
    baseline = view.baseline
    if baseline is None and len(view.groups) > comparisons.MAX_PAIRED_GROUPS:
        text = (
            f'There are {len(view.groups):,} groups. Name one with --baseline to compare the '
            'others with it.'
        )
        return tag('p', text, class_='quiet')
    groups = list(view.groups)
    if baseline is not None and len(groups) > MAX_SHOWN:
        groups = [*groups[:MAX_SHOWN], *([] if baseline in groups[:MAX_SHOWN] else [baseline])]
    found = comparisons.compare_all(groups, view.metric, baseline)
    done = [each for each in found if not each.refusal]
    refused = [each for each in found if each.refusal]
    return join(
        (
            _table(view, done) if done else None,
            tag('p', _note(view, done), class_='quiet') if done else None,
            _refusals(refused) if refused else None,
        )
    )


def _table(view: View, found: Sequence[Comparison]) -> Markup:
    has_flips = any(math.isfinite(each.sign_flip_p) for each in found)
    has_superiority = any(math.isfinite(each.superiority) for each in found)
    head = ['A', 'B', f'{view.metric}, A − B', '95% interval', 'around 0', 'p']
    head += ['p (Holm)'] if len(found) > 1 else []
    head += ['p (sign flips)'] if has_flips else []
    head += ['P(A better)', 'its interval'] if has_superiority else []
    methods = {each.method for each in found}
    if 'mcnemar' in methods:
        head += ['only A is right', 'only B is right']
    head += ['how'] if len(methods) > 1 else []
    ends = [end for each in found for end in (each.low, each.high, each.difference, 0.0)]
    reach = max((abs(end) for end in ends if math.isfinite(end)), default=0) or 1.0
    scale = charts.Axis(-1.05 * reach, 1.05 * reach, 4, _SCALE - 4)
    rows = []
    for each in found:
        cells = [
            Cell(name(each.a.label), each.a.label),
            Cell(name(each.b.label), each.b.label),
            Cell(signed(each.difference), each.difference, is_number=True),
            Cell(_interval(each.low, each.high, signed), each.low, is_number=True),
            Cell(_forest(each, scale), ''),
            Cell(p_value(each.p_value), each.p_value, is_number=True),
        ]
        if len(found) > 1:
            cells.append(Cell(p_value(each.adjusted), each.adjusted, is_number=True))
        if has_flips:
            cells.append(Cell(p_value(each.sign_flip_p), each.sign_flip_p, is_number=True))
        if has_superiority:
            interval = _interval(each.superiority_low, each.superiority_high, lambda v: fixed(v, 2))
            cells.append(Cell(fixed(each.superiority, 2), each.superiority, is_number=True))
            cells.append(Cell(interval, each.superiority_low, is_number=True))
        if 'mcnemar' in methods:
            for count in (each.only_a, each.only_b):
                cells.append(Cell(f'{count:,}', count, is_number=True))
        if len(methods) > 1:
            cells.append(Cell(_METHODS.get(each.method, '–'), ''))
        rows.append(cells)
    return table('comparisons', head, rows)


def _forest(each: Comparison, scale: charts.Axis) -> Markup:
    """Returns the interval of a difference, with a line at 0."""
    zero = charts.short(scale(0.0))
    parts = [tag('path', class_='tick', d=f'M{zero} 2v18')]
    if math.isfinite(each.low):
        line = f'M{charts.short(scale(each.low))} 11H{charts.short(scale(each.high))}'
        parts.append(tag('path', class_='mean', d=line))
    if math.isfinite(each.difference):
        parts.append(tag('circle', cx=charts.short(scale(each.difference)), cy=11, r=4))
    is_clear = math.isfinite(each.low) and not each.low <= 0 <= each.high
    drawn = tag('g', *parts, class_=charts.color_class(0 if is_clear else None))
    text = f'{signed(each.difference)}, {_interval(each.low, each.high, signed)}'
    return charts.svg([drawn], text, width=_SCALE, height=22, class_='strip')


def _note(view: View, found: Sequence[Comparison]) -> str:
    note = f'Differences of {view.metric} with their 95% intervals.'
    methods = {each.method for each in found}
    if len(methods) == 1:
        note += f' The test: {_METHODS.get(methods.pop(), "none")}.'
    if len(found) > 1:
        note += f' p (Holm) is adjusted for {len(found)} comparisons.'
    if any(math.isfinite(each.superiority) for each in found):
        note += (
            ' P(A better): the probability that a run of A beats one of B; an improvement is '
            'meaningful if its interval is above 0.5 and it is at least 0.75 (Bouthillier et al., '
            '2021).'
        )
    return note


def _refusals(refused: Sequence[Comparison]) -> Markup:
    items = [
        tag('li', name(each.a.label), ' and ', name(each.b.label), ': ', each.refusal)
        for each in refused[:20]
    ]
    if len(refused) > 20:
        items.append(tag('li', f'and {len(refused) - 20:,} more'))
    return tag('div', tag('p', 'Not compared:'), tag('ul', *items), class_='note')


def p_value(value: float) -> str:
    """Returns a p-value with as many digits as it is worth."""
    if math.isnan(value):
        return '–'
    return f'{value:.4f}' if value >= 0.001 else f'{value:.0e}'.replace('e-0', 'e-')


def _interval(low: float, high: float, form: Callable[[float], str]) -> str:
    return f'{form(low)} to {form(high)}' if math.isfinite(low) else '–'
