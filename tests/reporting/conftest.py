"""Run directories with made-up results, for reports of many runs."""

import json

import numpy as np
import pytest

from neptune_jax.runs import files

IMAGES = 200  # of the test


@pytest.fixture
def make_run():
    """Writes a run directory as the training writes it; returns its path."""
    return write_run


def write_run(
    folder,
    *,
    fields=None,
    seed=0,
    accuracy=0.9,
    status='finished',
    images='aa',
    correct=None,
    validated=True,
    rows=None,
):
    """Writes a run directory.

    Args:
        folder: its path.
        fields: of the config, that differ from the defaults: {'optim.name': 'sgd'}.
        seed, accuracy, status: of the run.
        images: the start of the sha256 of its test images.
        correct: bool[n], which test images it classifies correctly; None: there are no predictions.
        validated: whether there is a best checkpoint.
        rows: of metrics.jsonl; None: two rows of training and validation.
    """
    from neptune_jax import defaults

    config = defaults.get_config().unlock()
    config.seed = seed
    config.neptune.project = 'of/a-person'
    config.data.dir = '/home/person/data'
    for field, value in (fields or {}).items():
        group, _, name = field.rpartition('.')
        (config[group] if group else config)[name] = value
    (folder / 'artifacts').mkdir(parents=True)
    summary = {'status': status, 'step': 20, 'epochs': 5.0, 'params': 1234}
    if status == 'finished':
        if validated:
            summary['best'] = {'step': 10, 'accuracy': accuracy - 0.01}
            summary['val'] = {'loss': 0.5, 'accuracy': accuracy - 0.01, 'count': 100}
        summary['test'] = {'loss': 1 - accuracy, 'accuracy': accuracy, 'count': IMAGES}
    environment = {
        'command': ['/somewhere/neptune_jax/main.py', '--config=c.py', f'--workdir={folder}'],
        'python': '3.12.1',
        'packages': {'jax': '0.12.0'},
        'devices': ['cpu'],
        'data': {
            'source': 'mnist/1',
            'sha256': {'train': 'bb', 'val': 'cc' * 32, 'test': images * 32},
            'classes': ['a', 'b'],
        },
    }
    if rows is None:
        rows = [
            {'step': step, 'time': 1_700_000_000.0 + step, **values}
            for step in (10, 20)
            for values in ({'train/loss': 2 / step}, {'val/loss': 1.0, 'val/accuracy': step / 40})
        ]
    (folder / 'config.json').write_text(config.to_json())
    files.write_json(folder / 'summary.json', summary)
    files.write_json(folder / 'environment.json', environment)
    (folder / 'metrics.jsonl').write_text(''.join(f'{files.dumps(row)}\n' for row in rows))
    if correct is not None:
        label = np.zeros(len(correct), np.int32)
        np.savez(
            folder / 'artifacts/predictions.npz',
            index=np.arange(len(correct)),
            label=label,
            prediction=np.where(correct, 0, 1),
        )
    return folder


@pytest.fixture
def two_groups(tmp_path):
    """A sweep of two optimizers, sgd and adam, with three seeds each, and its folder."""
    accuracies = {'sgd': (0.90, 0.91, 0.92), 'adam': (0.93, 0.935, 0.95)}
    for name, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            correct = np.random.default_rng(seed).uniform(size=IMAGES) < accuracy
            write_run(
                tmp_path / f'sweep/optim.name={name},seed={seed}',
                fields={'optim.name': name},
                seed=seed,
                accuracy=accuracy,
                correct=correct,
            )
    (tmp_path / 'sweep/sweep.json').write_text(json.dumps({'objective': 'val/accuracy'}))
    return tmp_path / 'sweep'
