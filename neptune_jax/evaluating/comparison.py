"""Two finished runs on the same test images, from what their tests have left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from neptune_jax import terminal
from neptune_jax.errors import UserError
from neptune_jax.evaluating import finished, results
from neptune_jax.reporting import differences, figures, resampling, statistics
from neptune_jax.runs import files

HEADER = ('metric', 'difference', 'low', 'high')  # of `table`
ARRAYS = ('label', 'prediction', 'confidence', 'loss')


def compare(
    workdir: str, other: str, out: str = '', places: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compares the tests of two runs, prints the result and writes it into a folder.

    Nothing is evaluated. The data of `workdir` are opened for the picture alone; without them the
    comparison has none.

    Args:
        workdir, other: the run directories A and B.
        out: the folder for the results; '': a folder in `workdir`.
        places: where the data of `workdir` lie (finished.PLACES).

    Returns:
        The content of comparison.json.

    Raises:
        UserError: one of them holds no run or was not tested, or they were tested on other images.
    """
    runs = [finished.read(workdir, places), finished.read(other)]
    one, two = (_read_test(run) for run in runs)
    _check_same_images(runs, one, two)
    name = results.file_name(f'compare_{Path(other).absolute().name}')
    folder = results.writable(Path(out) if out else Path(workdir) / 'evaluations' / name)

    found = _compare(one, two, len(runs[0].data['classes']))
    found = {'runs': {'A': str(workdir), 'B': str(other)}, **found}
    with results.writing(folder):
        files.write_json(folder / 'comparison.json', found)
    _show(found)
    if found['only_a_correct'] or found['only_b_correct']:
        _draw(runs, one, two, folder)
    terminal.line(f'results  {folder}')
    return found


def _read_test(run):
    path = run.workdir / 'artifacts/predictions.npz'
    if not path.is_file():
        raise UserError(
            f'{run.workdir} has no artifacts/predictions.npz: the run was not tested; finish its '
            'training, with a test split'
        )
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f'{path} cannot be read ({error}); the run has to be tested again'
        ) from error


def _check_same_images(runs, one, two):
    there = [(run.data.get('sha256') or {}).get('test') for run in runs]
    for run, sha256 in zip(runs, there, strict=True):
        if not sha256:
            raise UserError(f'{run.workdir}/environment.json does not name its test images')
    classes = [run.data.get('classes') for run in runs]
    if there[0] != there[1] or classes[0] != classes[1]:
        what = 'images' if there[0] != there[1] else 'classes'
        (a, sha_a), (b, sha_b) = zip([run.workdir for run in runs], there, strict=True)
        raise UserError(
            f'{a} and {b} were tested on other {what} (sha256 of the test split {sha_a[:12]}... '
            f'and {sha_b[:12]}...), so they cannot be compared image by image; test both on the '
            'same images'
        )
    if not np.array_equal(one['label'], two['label']):
        raise UserError(f'the labels in the artifacts of {runs[0].workdir} and of the other differ')


def _compare(one, two, num_classes):
    labels = one['label']
    right = [run['prediction'] == labels for run in (one, two)]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    difference, interval = statistics.paired_difference(only_a, only_b, len(labels), results.LEVEL)
    with terminal.counted(2 * resampling.DRAWS, 'draws of the bootstrap') as advance:
        others = resampling.bootstrap_difference(
            labels, one, two, num_classes, level=results.LEVEL, advance=advance
        )
    return {
        'count': len(labels),
        'accuracy': [float(each.mean()) for each in right],
        'difference': difference,
        'interval': list(interval),
        'level': results.LEVEL,
        'only_a_correct': only_a,
        'only_b_correct': only_b,
        'mcnemar_p_value': statistics.mcnemar_exact(only_a, only_b),
        'methods': {
            'accuracy': 'score interval (Tango, 1998), exact test (McNemar, 1947)',
            'others': f'paired {results.METHODS["others"]}',
        },
        'other_metrics': {
            name: {'difference': value, 'interval': list(own)}
            for name, (value, own) in others.items()
            if name != 'accuracy'
        },
    }


def _show(found):
    a, b = found['runs'].values()
    terminal.line(f'A        {a}: accuracy {found["accuracy"][0]:.4f}')
    terminal.line(f'B        {b}: accuracy {found["accuracy"][1]:.4f}')
    terminal.line(
        f'images   the same {found["count"]:,} test images; only A is right on '
        f'{found["only_a_correct"]:,}, only B on {found["only_b_correct"]:,}'
    )
    rows = Table('metric', title='A minus B')
    rows.add_column('difference', justify='right')
    rows.add_column(f'{results.LEVEL:.0%} interval', justify='right')
    for name, difference, low, high in table(found):
        rows.add_row(name, f'{difference:+.4f}', f'{low:+.4f} to {high:+.4f}')
    terminal.table(rows)
    p_value = found['mcnemar_p_value']
    terminal.line(
        f'test     p = {p_value:.3g} (McNemar, exact): how probable so uneven a division of these '
        'images is between two runs that are equally good'
    )


def table(found: Mapping[str, Any]) -> list[tuple]:
    """Returns (metric, difference, low, high) for each metric of a comparison."""
    rows = [('accuracy', found['difference'], *found['interval'])]
    for name, own in found['other_metrics'].items():
        rows.append((name, own['difference'], *own['interval']))
    return rows


def _draw(runs, one, two, folder):
    """Draws images on which the runs differ, if the data of the first one are there."""
    try:
        data = finished.load_data(runs[0])
        examples = finished.examples_of(runs[0], data, 'test')
    except UserError as error:
        terminal.line(f'note     no picture of the images on which they differ: {error}')
        return
    names = [str(run.workdir) for run in runs]
    figures.save(
        lambda: differences.differences(data, examples, one, two, names),
        folder / 'differences.png',
    )
