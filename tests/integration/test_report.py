"""`python -m neptune_jax.report`, started as a user starts it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neptune_jax.runs import files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report(tmp_path):
    """Runs the command in a folder of its own."""

    def report(*args):
        return subprocess.run(
            [sys.executable, '-m', 'neptune_jax.report', *map(str, args)],
            env=os.environ | {'PYTHONPATH': str(ROOT), 'COLUMNS': '160'},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return report


@pytest.fixture
def sweep(finished_run, tmp_path):
    """A sweep of two optimizers with two seeds: copies of a run with other results."""
    for name in ('sgd', 'adam'):
        for seed in (0, 1):
            run = tmp_path / f'sweep/optim.name={name},seed={seed}'
            ignored = shutil.ignore_patterns('checkpoints', '*.png')
            shutil.copytree(finished_run, run, ignore=ignored)
            config = files.read_json(run / 'config.json')
            config['seed'], config['optim']['name'] = seed, name
            files.write_json(run / 'config.json', config)
            summary = files.read_json(run / 'summary.json')
            summary['test']['accuracy'] += 0.01 * seed * (1 + (name == 'sgd'))
            files.write_json(run / 'summary.json', summary)
    return tmp_path / 'sweep'


def test_a_sweep_becomes_records_and_records_become_the_same_tables(report, sweep):
    began = time.monotonic()
    shown = report('sweep')
    seconds = time.monotonic() - began
    assert shown.returncode == 0, shown.stderr
    assert 'optim.name=adam,seed=1' in shown.stdout
    assert 'comparisons' in shown.stdout
    assert 'pairs' in shown.stdout
    assert seconds < 10  # 0.6 on a quiet machine: neither JAX nor Matplotlib is imported

    written = report('sweep', '--out=results.jsonl')
    assert written.stdout == 'wrote results.jsonl\n'
    shutil.rmtree(sweep)
    results = report('results.jsonl', '--format=json', '--baseline=optim.name=sgd')
    assert results.returncode == 0, results.stderr
    found = json.loads(results.stdout)
    assert [each['label'] for each in found['groups']] == ['optim.name=adam', 'optim.name=sgd']
    (comparison,) = found['comparisons']
    assert comparison['b'] == 'optim.name=sgd'
    assert comparison['difference'] == pytest.approx(-0.005)

    selected = report(
        'results.jsonl', '--where=optim.name==adam and seed<1', '--format=csv', '--sort=-seed'
    )
    assert len(selected.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ('args', 'problem'),
    [
        ([], 'give run directories'),
        (['nowhere'], 'there is no such directory or file'),
        (['sweep', '--where=seed=='], '--where=seed=='),
        (['sweep', '--out=report.xyz'], 'the ending tells no format'),
        (['sweep', '--group_by=optim.nam'], 'no run has such a field'),
        (['sweep', '--format=xml'], 'format'),
    ],
)
def test_mistakes_are_one_line(report, sweep, args, problem):
    result = report(*args)
    assert result.returncode == 2
    assert problem in result.stderr
    assert result.stderr.startswith('error: ')
    assert result.stderr.count('\n') == 1
    assert result.stdout == ''
