"""What a finished run leaves to look at: tables as CSV, figures as PNG."""

import csv

import numpy as np

from neptune_jax import metrics, runs

MISTAKES_SHOWN = 25


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
    columns = 5
    rows = max(1, -(-len(worst) // columns))
    figure = _new_figure(1.9 * columns, 2.2 * rows + 0.4)
    figure.suptitle(f'{len(wrong):,} of {len(examples):,} test examples are wrong; the worst:')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis('off')
    images = dataset.read_images(examples[worst])
    for axes, i, image in zip(grid, worst, images, strict=False):
        label = dataset.labels[examples[i]]
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap='gray')
        prediction = dataset.class_names[outputs['prediction'][i]]
        axes.set_title(
            f'{prediction} {outputs["confidence"][i]:.0%}\n'
            f'is {dataset.class_names[label]} (test #{i})',
            fontsize=8,
        )
    return figure


def _new_figure(width, height):
    """Returns a matplotlib Figure; width and height in inches."""
    # Here, because it takes longer to import than a training needs to take its first steps.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')
