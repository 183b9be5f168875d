"""The model card of an exported model: a README.md with its data, results, limits and versions."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from neptune_jax import terminal
from neptune_jax.exporting import instructions
from neptune_jax.inference.predictor import Predictor
from neptune_jax.learning import metrics
from neptune_jax.reporting import resampling, statistics
from neptune_jax.runs import files, reader

RESIZED = {
    'stretch': 'stretched to this size',
    'crop': 'resized, and cut to their centre',
    'pad': 'resized to fit, with black beside them',
}


def write(predictor: Predictor, formats: Sequence[str], about: dict[str, Any]) -> str:
    """Returns the model card of a run's model as Markdown.

    Args:
        predictor: of the run.
        formats: of the network that lie beside the card.
        about: what preprocessing.json holds.
    """
    environment = files.read_json(Path(predictor.workdir) / 'environment.json')
    config = reader.read_config(predictor.workdir)
    count = sum(leaf.size for leaf in jax.tree.leaves(predictor.variables['params']))
    classes = len(predictor.classes)
    parts = [
        f'# {text(about["run"])}',
        f'A network that says which of {classes:,} classes an image belongs to. It is the model '
        f'`{config["model"]["name"]}` of neptune_jax with {count:,} parameters, from step '
        f'{predictor.step:,} of its training.',
        *instructions.write(formats, about),
        *_results(predictor),
        *_data(environment.get('data', {})),
        *_limits(predictor, config),
        *_versions(about, environment),
    ]
    return '\n\n'.join(parts) + '\n'


def text(value: Any) -> str:
    """Returns any text as Markdown that shows it as it is, on one line."""
    line = ' '.join(str(value).split())
    return re.sub(r'([\\`*_~\[\]{}<>&|#!$:])', r'\\\1', line)  # CommonMark 0.31, section 2.4


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table in Markdown, whose first column is text and whose others are numbers."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def _results(predictor):
    """The figures of the run's test, if it tested this checkpoint."""
    summary = reader.read_summary(predictor.workdir)
    path = Path(predictor.workdir) / 'artifacts' / 'predictions.npz'
    tested = summary.get('best', {}).get('step', summary.get('step'))
    if 'test' not in summary or not path.is_file() or tested != predictor.step:
        return [
            '## Results',
            'The run has no test of this checkpoint. `python -m neptune_jax.evaluate` tests it.',
        ]
    with np.load(path) as stored:
        outputs = {name: stored[name] for name in stored.files}
    labels, classes = outputs['label'], len(predictor.classes)
    if 'probabilities' in outputs:
        outputs['in_top5'] = _in_top5(outputs['probabilities'], labels)
    with terminal.counted(resampling.DRAWS, 'draws for the intervals') as advance:
        intervals = resampling.bootstrap(labels, outputs, classes, advance=advance)
    count = len(labels)
    correct = int((outputs['prediction'] == labels).sum())
    intervals['accuracy'] = statistics.wilson(correct, count)
    rows = [
        [text(name), f'{value:.4f}', *_interval(intervals.get(name))]
        for name, value in summary['test'].items()
        if isinstance(value, float)
    ]
    parts = [
        '## Results',
        f'On the {count:,} images of the test split, which was held out of the training. The '
        'intervals say how far other test images of the same kind would change the figures: '
        "Wilson's for the accuracy, else a bootstrap of 10,000 draws.",
        table(['metric', 'value', '95% interval'], rows),
    ]
    if predictor.temperature != 1:
        parts.append(
            'The exported model divides its logits by the temperature '
            f'{predictor.temperature:.4g}, which was fitted after this test. It changes loss and '
            'ece, and no predicted class.'
        )
    return parts + _per_class(predictor.classes, labels, outputs['prediction'])


def _in_top5(probabilities, labels):
    own = probabilities[np.arange(len(labels)), labels][:, None]
    lower = np.arange(probabilities.shape[1]) < labels[:, None]  # of equal ones the lower class
    return ((probabilities > own) | ((probabilities == own) & lower)).sum(axis=1) < metrics.TOP_K


def _interval(interval):
    return [f'{interval[0]:.4f} to {interval[1]:.4f}' if interval else '']


def _per_class(names, labels, predictions):
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    ratios = metrics.per_class(confusion)
    support, hits = confusion.sum(axis=1), confusion.diagonal()
    rows = [
        [
            text(name),
            f'{support[label]:,}',
            f'{ratios["precision"][label]:.4f}',
            f'{ratios["recall"][label]:.4f}' if support[label] else '',
            *_interval(statistics.wilson(int(hits[label]), int(support[label]))),
            f'{ratios["f1"][label]:.4f}',
        ]
        for label, name in enumerate(names)
    ]
    header = ['class', 'images', 'precision', 'recall', '95% interval of the recall', 'F1']
    return ['### Each class', table(header, rows)]


def _data(data):
    if not data:
        return []
    rows = [
        [text(split), f'{size:,}', f'`{data.get("sha256", {}).get(split, "")}`']
        for split, size in data.get('sizes', {}).items()
    ]
    read_from = f', read from {text(data["read_from"])}' if data.get('read_from') else ''
    return [
        '## Data',
        f'The source is {text(data.get("source", "unknown"))}{read_from}.',
        table(['split', 'images', 'sha256 of images and labels'], rows),
    ]


def _limits(predictor, config):
    height, width, channels = predictor.image_shape
    colour = {1: 'grey', 3: 'colour'}[channels]
    inputs = predictor.inputs
    points = [
        f'It sees {colour} images of {height} x {width} pixels. Others are '
        f'{RESIZED[predictor.conversion.resize]}'
        + (', and colour becomes grey.' if channels == 1 else ', and grey becomes colour.'),
        'It names one of its classes for every image, also for one that shows none of them, and '
        'may be sure of it. It knows nothing that its training images do not show.',
        'Its figures hold for images like those of its test. Other cameras, backgrounds, or shares '
        'of the classes change them.',
    ]
    if inputs:
        grey, ratio = inputs['grey'], inputs['aspect_ratio']
        points.append(
            f'Its training images had a mean brightness of {grey["mean"]:.2f} (black is 0, white '
            f'is 1; 98% of them lie between {grey["low"]:.2f} and {grey["high"]:.2f}), a width of '
            f'{ratio["low"]:.2f} to {ratio["high"]:.2f} times the height, and '
            f'{inputs["colour"]:.0%} of them were in colour.'
        )
    if config['model'].get('dtype') == 'bfloat16':
        points.append(
            'It was trained with bfloat16. The ONNX file computes in float32, so that its '
            'probabilities differ in the second or third digit.'
        )
    return ['## Limits', '\n'.join(f'- {point}' for point in points)]


def _versions(about, environment):
    trained = environment.get('packages', {}) | {'python': environment.get('python', '')}
    names = sorted({*about['versions'], *trained})
    rows = [[text(n), text(trained.get(n, '')), text(about['versions'].get(n, ''))] for n in names]
    return ['## Versions', table(['', 'trained with', 'exported with'], rows)]
