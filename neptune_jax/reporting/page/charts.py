"""Charts as SVG: axes, lines with bands, dots, bars. They need no scripts.

Colours are classes of page.css (`c0` to `c7`, `cx` for grey), so that they follow the scheme of the
reader. curves.js draws learning curves again with the same sizes.
"""

import dataclasses
import math
from collections.abc import Sequence

from neptune_jax.reporting.page.markup import Markup, number, tag

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 34  # margins around the area of the data
COLORS = 8

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A scale from values to places in a picture.

    Attributes:
        low, high: the values at its ends.
        start, end: their places.
        log: whether it is logarithmic; `low` is above 0 then.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the place of a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Returns about so many round values."""
        if self.log and self.high / self.low >= 10:
            first, last = math.log10(self.low), math.log10(self.high)
            decades = [10.0**e for e in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]
            if len(decades) >= 3:
                return decades[:: -(-len(decades) // count)]
            whole = range(math.floor(first), math.floor(last) + 1)
            found = [m * 10.0**e for e in whole for m in (1, 2, 5)]
            return [each for each in found if self.low <= each <= self.high]
        rough = (self.high - self.low) / count
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(each * step, 12) for each in range(first, last + 1)]

    def labels(self, count: int = 5) -> list[tuple[float, str]]:
        """Returns the values of `ticks` with their texts, which have the same number of digits."""
        found = self.ticks(count)
        if self.log or max(map(abs, found), default=0) < 1e-4:
            return [(value, number(value)) for value in found]
        texts = [f'{value:.10f}'.rstrip('0') for value in found]
        places = max((len(text.partition('.')[2]) for text in texts), default=0)
        return [(value, f'{value:,.{places}f}'.replace('-', '−')) for value in found]


def axis(
    values: Sequence[float], start: float, end: float, log: bool = False, pad: float = 0.04
) -> Axis:
    """Returns an axis that shows all finite values, with some room at its ends."""
    shown = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(shown), max(shown)) if shown else (0.1, 1.0)
    if log:
        factor = math.exp(pad * (math.log(high) - math.log(low))) if high > low else 1.5
        return Axis(low / factor, high * factor, start, end, log=True)
    room = pad * (high - low) or max(abs(low) * 0.05, 1e-9)
    return Axis(low - room, high + room, start, end)


def x_axis(values: Sequence[float], log: bool = False) -> Axis:
    """Returns the horizontal axis of a chart."""
    return axis(values, LEFT, WIDTH - RIGHT, log, pad=0.02)


def y_axis(values: Sequence[float], log: bool = False) -> Axis:
    """Returns the vertical axis of a chart."""
    return axis(values, HEIGHT - BOTTOM, TOP, log)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: what it shows.
        color: 0 to 7; None for grey.
        points: (x, y); a y that is not finite makes a gap.
        band: (x, low, high) of a shaded area around it.
    """

    label: str
    color: int | None
    points: Points
    band: Sequence[tuple[float, float, float]] = ()


def lines(
    series: Sequence[Line], title: str, description: str, x_label: str, *, log_x: bool = False
) -> Markup:
    """Returns a chart of lines.

    Args:
        series: drawn in this order.
        title, description: for those who do not see it.
        x_label: below the horizontal axis.
        log_x: whether that axis is logarithmic.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [value for line in series for _, *ends in line.band for value in ends]
    across, up = x_axis(xs, log_x), y_axis(ys)
    drawn = [frame(across, up, x_label)]
    for line in series:
        low = [(x, bottom) for x, bottom, _ in line.band]
        high = [(x, top) for x, _, top in line.band]
        shapes = []
        if len(low) > 1:
            shapes.append(tag('path', class_='band', d=path(low + high[::-1], across, up) + 'Z'))
        shapes.append(tag('path', class_='line', d=path(line.points, across, up)))
        drawn.append(tag('g', tag('title', line.label), *shapes, class_=color_class(line.color)))
    return svg(drawn, title, description)


def svg(
    content: Sequence[Markup],
    title: str,
    description: str = '',
    width: float = WIDTH,
    height: float = HEIGHT,
    class_: str = 'plot',
) -> Markup:
    """Returns a picture; those who do not see it get its title and description."""
    return tag(
        'svg',
        *content,
        class_=class_,
        viewBox=f'0 0 {short(width)} {short(height)}',
        role='img',
        aria_label=f'{title}. {description}' if description else title,
    )


def frame(
    across: Axis, up: Axis, x_label: str = '', marks: Sequence[tuple[float, str]] | None = None
) -> Markup:
    """Returns the grid of a chart with the numbers at its axes.

    Args:
        across, up: the axes.
        x_label: below the horizontal axis.
        marks: (value, text) along the horizontal axis; None: round numbers.
    """
    parts = []
    for value, text in up.labels():
        y = short(up(value))
        parts += [
            tag('path', d=f'M{short(across.start)} {y}H{short(across.end)}', class_='grid'),
            tag('text', text, x=short(across.start - 6), y=y, dy='.32em', class_='end'),
        ]
    bottom = max(up.start, up.end)
    for value, text in marks or across.labels():
        x = short(across(value))
        parts += [
            tag('path', d=f'M{x} {short(bottom)}v4', class_='tick'),
            tag('text', text, x=x, y=short(bottom + 16), class_='middle'),
        ]
    parts.append(
        tag('path', d=f'M{short(across.start)} {short(bottom)}H{short(across.end)}', class_='axis')
    )
    if x_label:
        parts.append(
            tag('text', x_label, x=short(across.end), y=short(bottom + 30), class_='end label')
        )
    return tag('g', *parts, class_='frame', aria_hidden='true')


def path(points: Points, across: Axis, up: Axis) -> str:
    """Returns the `d` of a path through points; one that cannot be shown makes a gap."""
    parts: list[str] = []
    before: tuple[int, int] | None = None  # in tenths, so that rounding does not add up
    for x, y in points:
        if not (math.isfinite(y) and (y > 0 or not up.log) and (x > 0 or not across.log)):
            before = None
            continue
        place = round(10 * across(x)), round(10 * up(y))
        if before is None:
            parts.append(f'M{short(place[0] / 10)} {short(place[1] / 10)}l')
        else:
            parts.append(' '.join(short((a - b) / 10) for a, b in zip(place, before, strict=True)))
        before = place
    if len(parts) == 1:
        parts.append('0 0')  # a point, as the round end of a line
    return ' '.join(parts).replace('l ', 'l').replace(' -', '-')


def dots(points: Points, across: Axis, up: Axis) -> str:
    """Returns the `d` of a path of lines without length, whose round ends are dots."""
    return ''.join(
        f'M{short(across(x))} {short(up(y))}h0' for x, y in points if math.isfinite(x + y)
    )


def strip(
    values: Sequence[tuple[float, str]],
    scale: Axis,
    title: str,
    *,
    mean: float | None = None,
    interval: tuple[float, float] | None = None,
    color: int | None = 0,
) -> Markup:
    """Returns a small picture of some values on a scale, for a row of a table.

    Args:
        values: each with its name.
        scale: the axis that all rows share.
        title: for those who do not see it.
        mean: a vertical line.
        interval: a horizontal bar; what lies outside of the scale is cut off.
        color: 0 to 7; None for grey.
    """
    height, parts = 22, []
    if interval and all(map(math.isfinite, interval)):
        ends = [min(max(value, scale.low), scale.high) for value in interval]
        x, end = (scale(value) for value in ends)
        width = short(max(end - x, 1))
        parts.append(tag('rect', x=short(x), y=8, width=width, height=6, rx=2, class_='interval'))
    if mean is not None and math.isfinite(mean):
        parts.append(tag('path', d=f'M{short(scale(mean))} 4v14', class_='mean'))
    parts += [
        tag('circle', tag('title', label), cx=short(scale(value)), cy=11, r=3)
        for value, label in values
        if math.isfinite(value)
    ]
    drawn = tag('g', *parts, class_=color_class(color))
    return svg([drawn], title, width=scale.end + scale.start, height=height, class_='strip')


def bars(rows: Sequence[tuple[str, float]], title: str, description: str, limit: float) -> Markup:
    """Returns horizontal bars with their names and values, the longest possible one is `limit`."""
    parts, step = [], 30
    for place, (label, value) in enumerate(rows):
        y = step * place
        width = short(max(0.0, value) / limit * (WIDTH - 50))
        parts += [
            tag('text', label, x=0, y=y + 11),
            tag('rect', x=0, y=y + 15, width=width, height=8, rx=2, class_='bar'),
            tag('text', number(value, 2), x=float(width) + 6, y=y + 23, class_='label'),
        ]
    drawn = tag('g', *parts, class_='c0')
    return svg([drawn], title, description, height=step * len(rows) + 4)


def color_class(color: int | None) -> str:
    """Returns the class of a colour: 0 to 7, or None for grey."""
    return 'cx' if color is None else f'c{color % COLORS}'


def short(value: float) -> str:
    """Returns a place in a picture with as few characters as its size needs."""
    text = f'{value:.1f}'
    if text.endswith('.0'):
        return '0' if text == '-0.0' else text[:-2]
    return text.replace('0.', '.', 1) if text.startswith(('0.', '-0.')) else text
