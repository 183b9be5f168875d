"""What a finished run leaves to look at: tables as CSV, figures as PNG."""

import csv

import numpy as np

from neptune_jax import metrics, runs

MISTAKES_SHOWN, MISTAKES_A_ROW = 25, 5


def write(run, dataset, examples, totals, outputs):
    """Writes all artifacts of a test into the run directory.

    Args:
        run: runs.Run.
        dataset: data.dataset.Dataset.
        examples: int[n], the examples tested.
        totals: summed statistics of the test (`metrics.statistics`).
        outputs: `loss`, `prediction` and `confidence` of each example, arrays [n].
    """
    confusion, names = totals['confusion'], dataset.class_names
    _write_csv(
        run.path('artifacts/confusion_matrix.csv'),
        ['label \\ prediction', *names],
        ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True)),
    )
    columns = metrics.per_class(confusion)
    _write_csv(
        run.path('artifacts/classification_report.csv'),
        ['class', 'precision', 'recall', 'f1', 'support'],
        (
            [names[c], f'{precision:.6f}', f'{recall:.6f}', f'{f1:.6f}', support]
            for c, precision, recall, f1, support in zip(*columns.values(), strict=True)
        ),
    )
    figures = {
        'confusion_matrix.png': confusion_matrix(confusion, names),
        'learning_curves.png': learning_curves(runs.read_rows(run.workdir)),
        'worst_mistakes.png': worst_mistakes(dataset, examples, outputs),
    }
    for name, figure in figures.items():
        figure.savefig(run.path('artifacts') / name, dpi=120)


def _write_csv(path, header, rows):
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def confusion_matrix(confusion, class_names):
    """Draws how often each class (row) was predicted as each class (column); shaded by row."""
    size = 2.5 + 0.5 * len(class_names)
    figure = _new_figure(size + 0.7, size)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha='right', rotation_mode='anchor')
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel='prediction', ylabel='label', title='Test examples')
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = 'white' if share[row, column] > 0.5 else 'black'
            axes.text(column, row, count, ha='center', va='center', color=color, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8, label='share of the label')
    return figure


def learning_curves(rows):
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
        axes.legend()
    return figure


def worst_mistakes(dataset, examples, outputs):
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
        prediction = dataset.class_names[outputs['prediction'][i]]
        label = dataset.class_names[dataset.labels[examples[i]]]
        text = f'{prediction} {outputs["confidence"][i]:.0%}\nis {label} (test #{i})'
        axes.text(x, y - 0.9, text, ha='center', va='bottom', fontsize=8)
    axes.axis((0, width, height, 0))
    axes.set_axis_off()
    return figure


def _new_figure(width, height, layout='constrained'):
    """Returns a matplotlib Figure; width and height in inches."""
    # Here, because it takes longer to import than a training needs to take its first steps.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)
