"""Figures of a training and of its tests, as PNG."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from neptune_jax import terminal
from neptune_jax.data.dataset import Dataset
from neptune_jax.data.given import GivenImages
from neptune_jax.errors import one_line
from neptune_jax.learning import metrics
from neptune_jax.reporting import names, statistics, tiling
from neptune_jax.runs import reader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISTAKES_SHOWN = 25
MAX_NUMBERED_CLASSES = 60  # with more, the confusion matrix is drawn without numbers
PAIRS_SHOWN = 25
MAX_CELLS = 1000  # of the confusion matrix, in each direction


def write(
    folder: Path,
    data: Dataset | GivenImages,
    examples: np.ndarray,
    totals: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    *,
    what: str = 'test',
    curves_of: Path | None = None,
    before: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draws the figures of a test into a folder. A figure that fails costs one warning line.

    Args:
        folder: for the figures.
        data: that the examples belong to.
        examples: int[n], the numbers of the tested examples.
        totals: summed statistics of the test (`metrics.statistics`).
        outputs: `loss`, `prediction` and `confidence` of each example, arrays [n].
        what: the examples are, in titles.
        curves_of: the run directory whose learning curves are drawn, if any.
        before: `prediction` and `confidence` without the temperature, if there is one.
    """
    labels = data.labels[examples]
    calibrated = {'with temperature' if before else what: outputs}
    if before:
        calibrated['without temperature'] = before
    figures = {
        'confusion_matrix.png': lambda: confusion_matrix(
            totals['confusion'], data.class_names, what
        ),
        'worst_mistakes.png': lambda: worst_mistakes(data, examples, outputs, what),
        'reliability_diagram.png': lambda: reliability_diagram(labels, calibrated, what),
    }
    if curves_of:
        figures['learning_curves.png'] = lambda: learning_curves(reader.read_rows(curves_of))
    for name, draw in figures.items():
        save(draw, folder / name)


def save(draw: 'Callable[[], Figure]', path: Path) -> None:
    """Draws a figure into a file. If that fails it costs one warning line."""
    try:
        draw().savefig(path, dpi=tiling.DPI)
    except Exception as error:  # results are saved already; no figure is worth a failed run
        path.unlink(missing_ok=True)
        problem = f'{type(error).__name__}: {one_line(error, 200)}'
        terminal.line(f'warning: {path} was not drawn ({problem})')


def confusion_matrix(
    confusion: np.ndarray, class_names: Sequence[str], what: str = 'test'
) -> 'Figure':
    """Draws how often each class (row) was predicted as each class (column); shaded by row.

    With more than 60 classes the figure has a fixed size, no number in a cell, and a table of the
    most frequent mistakes.

    Args:
        confusion: int[K, K].
        class_names: of the K classes.
        what: the examples are.
    """
    if len(class_names) > MAX_NUMBERED_CLASSES:
        return _large_confusion_matrix(confusion, class_names, what)
    shown = [names.shown(name, 30, number) for number, name in enumerate(class_names)]
    # Labels of usual length fit into the margins; longer ones need more room.
    size = 2.5 + 0.5 * len(class_names) + 0.08 * max(0, max(map(names.columns, shown)) - 14)
    figure = new_figure(size + 0.7, size)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    ticks, style = range(len(class_names)), names.style()
    axes.set_xticks(ticks, shown, rotation=45, ha='right', rotation_mode='anchor', **style)
    axes.set_yticks(ticks, shown, **style)
    axes.set(xlabel='prediction', ylabel='label', title=f'{what.capitalize()} examples')
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = 'white' if share[row, column] > 0.5 else 'black'
            axes.text(column, row, count, ha='center', va='center', color=color, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8, label='share of the label')
    return figure


def _large_confusion_matrix(confusion, class_names, what):
    """Draws the shares as an image of at most 1000 x 1000 cells, beside the most frequent mistakes.

    With more classes, a cell shows the largest share of several neighbours.
    """
    from matplotlib.colors import PowerNorm

    figure = new_figure(17, 9, layout=None)
    axes = figure.add_axes((0.04, 0.08, 0.44, 0.84))
    size = len(class_names)
    share = (confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    block = -(-size // MAX_CELLS)
    share = np.pad(share, (0, -size % block))
    share = share.reshape(len(share) // block, block, -1, block).max(axis=(1, 3))
    edge = len(share) * block - 0.5
    # The square root makes rare mistakes visible.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(share, cmap='Blues', norm=norm, extent=(-0.5, edge, edge, -0.5))
    title = f'{what.capitalize()} examples'
    axes.set(xlabel='number of the prediction', ylabel='number of the label', title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    bar = figure.add_axes((0.49, 0.2, 0.01, 0.6))
    figure.colorbar(image, cax=bar, label='share of the label')

    table = figure.add_axes((0.56, 0.06, 0.43, 0.88))
    table.axis((0, 1, PAIRS_SHOWN, -1))
    table.set_axis_off()
    pairs = metrics.confused_pairs(confusion, PAIRS_SHOWN)
    if not pairs:
        table.text(0, -1, f'No {what} example is wrong', weight='bold')
        return figure
    columns = ((0, 'left'), (0.4, 'left'), (0.87, 'right'), (1, 'right'))
    header = ('label', 'was predicted as', 'examples', 'of the label')
    cells = [
        [_numbered(class_names, label), _numbered(class_names, prediction), f'{n:,}', f'{part:.0%}']
        for label, prediction, n, part in pairs
    ]
    for row, texts in enumerate([header, *cells], start=-1):
        for (x, side), text in zip(columns, texts, strict=True):
            weight = 'bold' if row < 0 else 'normal'
            table.text(x, row, text, ha=side, weight=weight, fontsize=9, **names.style())
    return figure


def _numbered(class_names, number):
    return f'{number}: {names.shown(class_names[number], 26)}'


def learning_curves(rows: list[dict]) -> 'Figure':
    """Draws loss, accuracy and learning rate against the step."""
    figure = new_figure(12, 3.6)
    panels = {'loss': ('train', 'val'), 'accuracy': ('train', 'val'), 'learning_rate': ('train',)}
    for axes, (name, splits) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for split in splits:
            key = f'{split}/{name}'
            points = [(row['step'], row[key]) for row in rows if key in row]
            if points:
                marker = {'train': '', 'val': 'o'}[split]
                axes.plot(*zip(*points, strict=True), label=split, marker=marker, markersize=4)
        axes.set(xlabel='step', title=name.replace('_', ' '))
        axes.locator_params(axis='x', integer=True)
        axes.grid(alpha=0.3)
        if axes.get_lines():
            axes.legend()
    return figure


def worst_mistakes(
    data: Dataset | GivenImages,
    examples: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    what: str = 'test',
) -> 'Figure':
    """Draws the wrongly classified examples with the highest loss, worst first."""
    labels = data.labels[examples]
    wrong = np.flatnonzero(outputs['prediction'] != labels)
    worst = wrong[np.argsort(-outputs['loss'][wrong], kind='stable')][:MISTAKES_SHOWN]

    def name(number):
        return names.shown(data.class_names[number], 16, number)

    captions = [
        f'{name(outputs["prediction"][i])} {outputs["confidence"][i]:.0%}\n'
        f'is {name(labels[i])} ({what} #{i})'
        for i in worst
    ]
    title = f'{len(wrong):,} of {len(examples):,} {what} examples are wrong; the worst:'
    return captioned(data.read_images(examples[worst]), captions, title)


def captioned(images: np.ndarray, captions: Sequence[str], title: str, lines: int = 2) -> 'Figure':
    """Draws images [n, H, W, C], five a row, each below its caption of some lines."""
    width, height = tiling.size(len(images), lines)
    figure = new_figure(width, height, layout=None)
    # All on one pair of axes, in inches: a pair for each image takes seconds to draw.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.text(width / 2, 0.2, title, ha='center', va='center', fontsize=12)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top, right, bottom = tiling.box(place, image.shape, lines)
        axes.imshow(
            image.squeeze(-1) if image.shape[-1] == 1 else image,
            cmap='gray',
            extent=(left, right, bottom, top),
        )
        x, y = (left + right) / 2, (top + bottom) / 2 - 0.9
        axes.text(x, y, caption, ha='center', va='bottom', fontsize=8, **names.style())
    axes.axis((0, width, height, 0))
    axes.set_axis_off()
    return figure


def reliability_diagram(
    labels: np.ndarray, calibrated: Mapping[str, Mapping[str, np.ndarray]], what: str = 'test'
) -> 'Figure':
    """Draws the accuracy of the examples in each bin of confidence, and how many these are.

    Honest probabilities lie on the diagonal (Guo et al., 2017, figure 1). A vertical line is the
    95% interval of an accuracy.

    Args:
        labels: int[n].
        calibrated: `prediction` and `confidence` of each example, arrays [n], by the name of the
            probabilities, such as 'with temperature'. The first ones are drawn as bars.
        what: the examples are.
    """
    figure = new_figure(6, 7)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 1), (0, 1), '--', color='gray')
    edges = np.linspace(0, 1, metrics.CALIBRATION_BINS + 1)
    for place, (name, outputs) in enumerate(calibrated.items()):
        bins = metrics.reliability(outputs['confidence'], outputs['prediction'] == labels)
        count, gaps = bins['count'], np.abs(bins['accuracy'] - bins['confidence'])
        text = f'{name}: ECE {np.nansum(count * gaps) / len(labels):.4f}'
        style = {'color': f'C{place}', 'zorder': 3}
        above.plot(bins['confidence'], bins['accuracy'], 'o-', label=text, **style)
        for x, accuracy, size in zip(bins['confidence'], bins['accuracy'], count, strict=True):
            if size:
                interval = statistics.wilson(round(accuracy * size), int(size))
                above.plot((x, x), interval, linewidth=1, **style)
        if place:
            below.stairs(count, edges, **style)
            continue
        bars = {'width': 1 / metrics.CALIBRATION_BINS, 'align': 'edge', 'alpha': 0.3, 'color': 'C0'}
        above.bar(edges[:-1], np.nan_to_num(bins['accuracy']), **bars)
        for bar in below.bar(edges[:-1], count, **bars):
            if height := int(bar.get_height()):
                middle = bar.get_x() + bar.get_width() / 2
                below.text(middle, height, f'{height:,}', ha='center', va='bottom', fontsize=6)
    above.set(ylabel='accuracy', xlim=(0, 1), ylim=(0, 1), title=f'{what.capitalize()} examples')
    above.legend(loc='upper left')
    below.set(xlabel='confidence: the probability of the predicted class', ylabel='examples')
    below.margins(y=0.15)
    return figure


def augmentation(batch: dict, epochs: list[dict], class_names: Sequence[str]) -> 'Figure':
    """Draws a row for each example: the original, then as it is in each of some epochs.

    Args:
        batch: `image` float32[n, H, W, C] in [0, 1] and `label` int[n], as they are in the data.
        epochs: the same after augmentation, for each epoch.
        class_names: of the labels.
    """
    figure = new_figure(1.5 * (len(epochs) + 1), 1.7 * len(batch['image']))
    grid = figure.subplots(len(batch['image']), len(epochs) + 1, squeeze=False)

    def name(label):
        return names.shown(class_names[label], 16, label)

    for column, shown in enumerate([batch, *epochs]):
        for row, axes in enumerate(grid[:, column]):
            image = shown['image'][row]
            axes.imshow(
                image.squeeze(-1) if image.shape[-1] == 1 else image, 'gray', vmin=0, vmax=1
            )
            axes.axis('off')
            title = name(shown['label'][row])
            if 'other_label' in shown:
                weight = shown['label_weight'][row]
                other = name(shown['other_label'][row])
                title = f'{weight:.0%} {title}\n{1 - weight:.0%} {other}'
            axes.set_title(title, fontsize=7, **names.style())
    grid[0, 0].text(
        0.5, 1.35, 'original', transform=grid[0, 0].transAxes, ha='center', weight='bold'
    )
    for epoch in range(len(epochs)):
        axes = grid[0, epoch + 1]
        axes.text(0.5, 1.35, f'epoch {epoch}', transform=axes.transAxes, ha='center', weight='bold')
    return figure


def new_figure(
    width: float, height: float, layout: "Literal['constrained'] | None" = 'constrained'
) -> 'Figure':
    """Returns a matplotlib Figure; width and height in inches."""
    # Imported here because that takes longer than the first steps of a training.
    from matplotlib.figure import Figure

    class QuietFigure(Figure):
        """Does not warn of characters that no installed font has: a box stands for them."""

        def draw(self, renderer):
            with warnings.catch_warnings():
                for start in ('Glyph ', 'Matplotlib currently does not support '):
                    warnings.filterwarnings('ignore', start, UserWarning)
                super().draw(renderer)

    return QuietFigure(figsize=(width, height), layout=layout)
