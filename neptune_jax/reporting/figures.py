"""Figures of one run, as PNG."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neptune_jax import terminal
from neptune_jax.data.dataset import Dataset
from neptune_jax.errors import one_line
from neptune_jax.learning import metrics
from neptune_jax.reporting import names
from neptune_jax.runs import reader
from neptune_jax.runs.writer import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISTAKES_SHOWN, MISTAKES_A_ROW = 25, 5
MAX_NUMBERED_CLASSES = 60  # with more, the confusion matrix is drawn without numbers
PAIRS_SHOWN = 25
MAX_CELLS = 1000  # of the confusion matrix, in each direction


def write(run: Run, dataset: Dataset, examples: np.ndarray, totals: dict, outputs: dict) -> None:
    """Draws the figures of a test into artifacts/. A figure that fails costs one warning line.

    Args:
        run: the run.
        dataset: the data that the test belongs to.
        examples: int[n], the numbers of the tested examples.
        totals: summed statistics of the test (`metrics.statistics`).
        outputs: `loss`, `prediction` and `confidence` of each example, arrays [n].
    """
    figures = {
        'confusion_matrix.png': lambda: confusion_matrix(totals['confusion'], dataset.class_names),
        'learning_curves.png': lambda: learning_curves(reader.read_rows(run.workdir)),
        'worst_mistakes.png': lambda: worst_mistakes(dataset, examples, outputs),
    }
    for name, draw in figures.items():
        path = run.path('artifacts') / name
        try:
            draw().savefig(path, dpi=120)
        except Exception as error:  # results are saved already; no figure is worth a failed run
            path.unlink(missing_ok=True)
            problem = f'{type(error).__name__}: {one_line(error, 200)}'
            terminal.line(f'warning: {path} was not drawn ({problem})')


def confusion_matrix(confusion: np.ndarray, class_names: Sequence[str]) -> 'Figure':
    """Draws how often each class (row) was predicted as each class (column); shaded by row.

    With more than 60 classes the figure has a fixed size, no number in a cell, and a table of the
    most frequent mistakes.

    Args:
        confusion: int[K, K].
        class_names: of the K classes.
    """
    if len(class_names) > MAX_NUMBERED_CLASSES:
        return _large_confusion_matrix(confusion, class_names)
    shown = [names.shown(name, 30, number) for number, name in enumerate(class_names)]
    # Labels of usual length fit into the margins; longer ones need more room.
    size = 2.5 + 0.5 * len(class_names) + 0.08 * max(0, max(map(names.columns, shown)) - 14)
    figure = _new_figure(size + 0.7, size)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    ticks, style = range(len(class_names)), names.style()
    axes.set_xticks(ticks, shown, rotation=45, ha='right', rotation_mode='anchor', **style)
    axes.set_yticks(ticks, shown, **style)
    axes.set(xlabel='prediction', ylabel='label', title='Test examples')
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = 'white' if share[row, column] > 0.5 else 'black'
            axes.text(column, row, count, ha='center', va='center', color=color, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8, label='share of the label')
    return figure


def _large_confusion_matrix(confusion, class_names):
    """Draws the shares as an image of at most 1000 x 1000 cells, beside the most frequent mistakes.

    With more classes, a cell shows the largest share of several neighbours.
    """
    from matplotlib.colors import PowerNorm

    figure = _new_figure(17, 9, layout=None)
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
    axes.set(xlabel='number of the prediction', ylabel='number of the label', title='Test examples')
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    bar = figure.add_axes((0.49, 0.2, 0.01, 0.6))
    figure.colorbar(image, cax=bar, label='share of the label')

    table = figure.add_axes((0.56, 0.06, 0.43, 0.88))
    table.axis((0, 1, PAIRS_SHOWN, -1))
    table.set_axis_off()
    pairs = metrics.confused_pairs(confusion, PAIRS_SHOWN)
    if not pairs:
        table.text(0, -1, 'No test example is wrong', weight='bold')
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
    figure = _new_figure(12, 3.6)
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


def worst_mistakes(dataset: Dataset, examples: np.ndarray, outputs: dict) -> 'Figure':
    """Draws the wrongly classified examples with the highest loss, worst first."""
    wrong = np.flatnonzero(outputs['prediction'] != dataset.labels[examples])
    worst = wrong[np.argsort(-outputs['loss'][wrong], kind='stable')][:MISTAKES_SHOWN]
    rows = max(1, -(-len(worst) // MISTAKES_A_ROW))
    width, height = 1.9 * MISTAKES_A_ROW, 2.2 * rows + 0.4
    figure = _new_figure(width, height, layout=None)
    # All on one pair of axes, in inches: a pair for each image takes seconds to draw.
    axes = figure.add_axes((0, 0, 1, 1))
    title = f'{len(wrong):,} of {len(examples):,} test examples are wrong; the worst:'
    axes.text(width / 2, 0.2, title, ha='center', va='center', fontsize=12)
    images = dataset.read_images(examples[worst])
    for place, (i, image) in enumerate(zip(worst, images, strict=True)):
        row, column = divmod(place, MISTAKES_A_ROW)
        x, y = 1.9 * column + 0.95, 2.2 * row + 1.7  # of its centre
        half = 0.85 * np.array(image.shape[:2]) / max(image.shape[:2])
        axes.imshow(
            image.squeeze(-1) if image.shape[-1] == 1 else image,
            cmap='gray',
            extent=(x - half[1], x + half[1], y + half[0], y - half[0]),
        )
        prediction, label = (
            names.shown(dataset.class_names[number], 16, number)
            for number in (outputs['prediction'][i], dataset.labels[examples[i]])
        )
        text = f'{prediction} {outputs["confidence"][i]:.0%}\nis {label} (test #{i})'
        axes.text(x, y - 0.9, text, ha='center', va='bottom', fontsize=8, **names.style())
    axes.axis((0, width, height, 0))
    axes.set_axis_off()
    return figure


def augmentation(batch: dict, epochs: list[dict], class_names: Sequence[str]) -> 'Figure':
    """Draws a row for each example: the original, then as it is in each of some epochs.

    Args:
        batch: `image` float32[n, H, W, C] in [0, 1] and `label` int[n], as they are in the data.
        epochs: the same after augmentation, for each epoch.
        class_names: of the labels.
    """
    figure = _new_figure(1.5 * (len(epochs) + 1), 1.7 * len(batch['image']))
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


def _new_figure(width, height, layout='constrained'):
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
