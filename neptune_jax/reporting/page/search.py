"""A search or a grid: which fields matter, which values are good, how the best was found."""

from collections.abc import Sequence

from neptune_jax.reporting.comparisons import is_lower_better
from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, fixed, join, shorten, tag, visible
from neptune_jax.reporting.page.trials import Dimension, Trial, dimensions
from neptune_jax.reporting.page.trials import of_view as trials_of
from neptune_jax.reporting.page.views import View

MAX_TRIALS, MAX_DOTS = 160, 100  # that are drawn; with more dots, none has its name


def section(view: View) -> Markup | None:
    """Returns the charts of a search; None if too few runs have a value."""
    trials = trials_of(view)
    found = dimensions(view, trials)
    if len(trials) < 4 or not found:
        return None
    best = _best(view, trials)
    note = (
        f'{len(trials):,} runs have the objective {view.objective}; the best is '
        f'{fixed(best.value)}, of run {view.short_name(best.record)}.'
    )
    drawn = _drawn(view, trials)
    if len(drawn) < len(trials):
        note += f' The charts show the best {MAX_TRIALS // 2} and {MAX_TRIALS // 2} of the others.'
    up = _objective_axis(view, trials)
    beyond = sum(not up.low <= trial.value <= up.high for trial in trials)
    if beyond:
        worst = fixed(up.high if is_lower_better(view.objective) else up.low)
        note += f' {beyond:,} worse than {worst} lie beyond the charts.'
    slices = [_slice(view, each, drawn, up) for each in found[:6]]
    pictures = (_best_so_far(view, trials, up), _importance(found), *slices)
    return join(
        (
            tag('p', note),
            _parallel(view, found, drawn, up),
            tag('h3', 'How the best was found, what matters, and slices'),
            tag('div', *pictures, class_='charts'),
        )
    )


def _best(view: View, trials: Sequence[Trial]) -> Trial:
    choose = min if is_lower_better(view.objective) else max
    return choose(trials, key=lambda trial: trial.value)


def _ranked(view: View, trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials, the best first."""
    sign = 1 if is_lower_better(view.objective) else -1
    return sorted(trials, key=lambda trial: sign * trial.value)


def _drawn(view: View, trials: Sequence[Trial]) -> list[Trial]:
    ranked = _ranked(view, trials)
    if len(ranked) <= MAX_TRIALS:
        return ranked
    half = MAX_TRIALS // 2
    rest = ranked[half:]
    return ranked[:half] + [rest[place * len(rest) // half] for place in range(half)]


def _objective_axis(view: View, trials: Sequence[Trial]) -> charts.Axis:
    """Returns the vertical axis, on which very bad trials do not push all others together."""
    values = sorted(trial.value for trial in trials)
    middle, sign = values[len(values) // 2], -1 if is_lower_better(view.objective) else 1
    best = values[-1] if sign > 0 else values[0]
    limit = middle - 4 * (best - middle)
    kept = [value for value in values if sign * value >= sign * limit]
    return charts.y_axis(kept)


def _parallel(
    view: View, dimensions: Sequence[Dimension], drawn: Sequence[Trial], up: charts.Axis
) -> Markup:
    """Returns a line for each run through its values; the better it is, the stronger."""
    width, height, top, bottom = 1200, 300, 34, 280
    objective = Dimension(view.objective, None, (up.low, up.high), False, 0)
    # The objective comes last; what matters most is next to it.
    columns = [*reversed(dimensions), objective]
    scales = [each.axis(bottom, top) for each in columns]
    places = [90 + (width - 150) * i / (len(columns) - 1) for i in range(len(columns))]
    lines = []
    for rank, trial in reversed(list(enumerate(drawn))):
        values = [each.value(trial.record) for each in columns[:-1]]
        values.append(min(max(trial.value, up.low), up.high))
        points = (
            f'{charts.short(x)} {charts.short(scale(value))}'
            for x, scale, value in zip(places, scales, values, strict=True)
        )
        strength = (1 - rank / len(drawn)) ** 2
        lines.append(
            tag(
                'path',
                d='M' + 'L'.join(points),
                class_='best' if rank == 0 else None,
                stroke_opacity=f'{0.06 + 0.8 * strength:.2g}' if rank else None,
                data_trial=rank,
            )
        )
    axes = []
    for each, scale, x in zip(columns, scales, places, strict=True):
        axes.append(tag('path', class_='axis', d=f'M{charts.short(x)} {top}V{bottom}'))
        name = each.field.rpartition('.')[2] if each is not objective else each.field
        axes.append(tag('text', shorten(name, 18), x=charts.short(x), y=18, class_='middle'))
        for value, text in each.ticks(scale):
            y = charts.short(scale(value))
            axes.append(tag('text', text, x=charts.short(x - 6), y=y, dy='.32em', class_='end'))
    texts = 'Each line is a run; the better its objective, the stronger it is. Orange: the best.'
    picture = charts.svg(
        [tag('g', *lines, class_='ways'), tag('g', *axes, class_='frame', aria_hidden='true')],
        'Parallel coordinates',
        f'{texts} The table of runs has the same values.',
        width,
        height,
    )
    caption = tag('figcaption', tag('b', 'Parallel coordinates'), f' {texts}')
    return tag('figure', caption, tag('div', picture, class_='scroll'), id='parallel')


def _importance(dimensions: Sequence[Dimension]) -> Markup:
    rows = [(each.field, each.matters) for each in dimensions]
    text = 'ε²: the share of the variance of the objective that a field alone explains'
    return tag(
        'figure',
        tag('figcaption', tag('b', 'Importance'), f' {text} (Kelley, 1935)'),
        charts.bars(rows, 'Importance of the fields', f'{text}.', limit=1.0),
    )


def _slice(view: View, each: Dimension, drawn: Sequence[Trial], up: charts.Axis) -> Markup:
    """Returns the objective against the values of a field."""
    across = each.axis(charts.LEFT, charts.WIDTH - charts.RIGHT)
    points = [
        (each.value(trial.record), trial.value, trial)
        for trial in drawn
        if up.low <= trial.value <= up.high
    ]
    grid = charts.frame(across, up, marks=each.ticks(across))
    parts = [grid, _dots(view, points, across, up)]
    description = f'{view.objective} of each run against {each.field}.'
    return tag(
        'figure',
        tag('figcaption', tag('b', each.field)),
        charts.svg(parts, f'Slice: {each.field}', description),
    )


def _best_so_far(view: View, trials: Sequence[Trial], up: charts.Axis) -> Markup:
    better = min if is_lower_better(view.objective) else max
    across = charts.x_axis([0.0, len(trials)])
    best, corners = trials[0].value, [(1.0, trials[0].value)]
    for trial in trials:
        reached = better(best, trial.value)
        if reached != best:
            corners += [(trial.number + 1.0, best), (trial.number + 1.0, reached)]
        best = reached
    corners.append((float(len(trials)), best))
    shown_steps = [(x, max(min(y, up.high), up.low)) for x, y in corners]
    # Some of very many, evenly chosen.
    points = [(t.number + 1.0, t.value, t) for t in trials if up.low <= t.value <= up.high]
    line = tag('path', class_='line', d=charts.path(shown_steps, across, up))
    parts = [
        charts.frame(across, up, 'run'),
        _dots(view, points[:: -(-len(points) // (2 * MAX_TRIALS))], across, up, color=None),
        tag('g', line, class_='c1'),
    ]
    final = fixed(best)
    description = f'{view.objective} of the runs in the order of their starts. The best is {final}.'
    return tag(
        'figure',
        tag('figcaption', tag('b', 'Best so far'), f' {view.objective}'),
        charts.svg(parts, 'Best so far', description),
    )


def _dots(
    view: View,
    points: Sequence[tuple[float, float, Trial]],
    across: charts.Axis,
    up: charts.Axis,
    color: int | None = 0,
) -> Markup:
    class_ = charts.color_class(color)
    if len(points) > MAX_DOTS:
        d = charts.dots([point[:2] for point in points], across, up)
        return tag('g', tag('path', d=d, class_='dots'), class_=class_)
    circles = (
        tag(
            'circle',
            tag('title', f'{view.short_name(trial.record)}: {fixed(trial.value)}'),
            cx=charts.short(across(x)),
            cy=charts.short(up(y)),
            r=3,
            fill_opacity=0.65,
        )
        for x, y, trial in points
    )
    return tag('g', *circles, class_=class_)


def names_for_script(view: View) -> list[str]:
    """Returns what the pointer shows at each line of the parallel coordinates."""
    trials = _drawn(view, trials_of(view))
    return [
        shorten(visible(f'{view.short_name(trial.record)}: {fixed(trial.value)}'), 80)
        for trial in trials
    ]
