"""Suggestions of a search, from run directories that hold what a test needs."""

import json
import math
import sys

import numpy as np
import pytest

from neptune_jax import defaults
from neptune_jax.errors import UserError
from neptune_jax.sweeping import objectives, space, study
from neptune_jax.sweeping.trials import Trial

optuna = pytest.importorskip('optuna')

ACCURACY = objectives.parse('val/accuracy')
TEXTS = [
    'optim.learning_rate=log:1e-4:1',
    'train.batch_size=log:8:128',
    'model.activation=relu,gelu',
    'model.hidden=(),(32, 16)',
]


@pytest.fixture
def dimensions():
    return space.search(TEXTS, defaults.get_config())


def add(folder, number, overrides, status, value=None):
    """Writes the directory of a trial; returns the trial."""
    trial = Trial(folder, f'{number:04}', number, overrides)
    trial.directory.mkdir(parents=True)
    trial.describe()
    summary = {'status': status}
    if status == 'finished':
        summary |= {'val': {'accuracy': value}, 'best': {'step': 1, 'accuracy': 1 - value}}
    if status == 'pruned':
        rows = [{'step': 10, 'val/accuracy': value, 'val/loss': 1.0}]
        trial.path('metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
        config = {'train': {'batch_size': 10, 'epochs': 9.0, 'steps': None}}
        trial.path('config.json').write_text(json.dumps(config))
        about = {'data': {'sizes': {'train': 50}}}
        trial.path('environment.json').write_text(json.dumps(about))
    trial.path('summary.json').write_text(json.dumps(summary))
    return trial


def suggest(dimensions, trials, number, sampler='tpe', seed=0):
    return study.suggest(dimensions, trials, number, sampler=sampler, objective=ACCURACY, seed=seed)


def score(overrides):
    """A made-up accuracy, the best at a rate of 0.01."""
    gain = 0.1 * (overrides['model.activation'] == 'gelu')
    return 0.9 - 0.2 * abs(math.log10(overrides['optim.learning_rate']) + 2) + gain


def search(folder, dimensions, count, sampler='tpe', seed=0, statuses=('finished',)):
    trials = []
    for number in range(count):
        overrides = suggest(dimensions, trials, number, sampler, seed)
        status = statuses[number % len(statuses)]
        trials.append(add(folder, number, overrides, status, score(overrides)))
    return trials


def test_a_suggestion_sets_each_field_within_its_range(dimensions, tmp_path):
    for sampler in ('tpe', 'random', 'qmc'):
        for trial in search(tmp_path / sampler, dimensions, 15, sampler):
            point = trial.overrides
            assert 1e-4 <= point['optim.learning_rate'] <= 1
            assert 8 <= point['train.batch_size'] <= 128
            assert type(point['train.batch_size']) is int
            assert point['model.activation'] in ('relu', 'gelu')
            assert point['model.hidden'] in ([], [32, 16])
            space.resolve(defaults.get_config(), point)


@pytest.mark.parametrize('sampler', ['tpe', 'random', 'qmc'])
def test_the_same_directories_give_the_same_suggestion(dimensions, tmp_path, sampler):
    states = ('finished', 'pruned', 'running', 'failed')
    first = search(tmp_path / 'a', dimensions, 16, sampler, statuses=states)
    again = search(tmp_path / 'b', dimensions, 16, sampler, statuses=states)
    assert [trial.overrides for trial in first] == [trial.overrides for trial in again]
    other = search(tmp_path / 'c', dimensions, 3, sampler, seed=1)
    assert other[2].overrides != first[2].overrides


def test_a_search_that_goes_on_repeats_none_of_its_trials(dimensions, tmp_path):
    """Also where each process starts with nothing in its memory, as after a crash."""
    trials = search(tmp_path, dimensions, 30)
    points = {json.dumps(trial.overrides) for trial in trials}
    assert len(points) == 30
    assert json.dumps(suggest(dimensions, trials[:30], 30)) not in points


def test_it_is_what_optuna_suggests_for_these_trials(dimensions, tmp_path):
    """The same trials, told to a study in the usual way, with the others running or pruned."""
    states = ('finished', 'pruned', 'running', 'failed')
    trials = search(tmp_path, dimensions, 24, 'random', statuses=states)
    seed = int(np.random.SeedSequence([5, 24, 0]).generate_state(1)[0])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    expected = optuna.create_study(
        direction='maximize', sampler=optuna.samplers.TPESampler(seed=seed)
    )
    for trial in trials:
        point = dict(trial.overrides)
        point['model.hidden'] = {0: '()', 2: '(32, 16)'}[len(point['model.hidden'])]
        expected.enqueue_trial(point)
        asked = expected.ask()
        asked.suggest_float('optim.learning_rate', 1e-4, 1, log=True)
        asked.suggest_int('train.batch_size', 8, 128, log=True)
        asked.suggest_categorical('model.activation', ['relu', 'gelu'])
        asked.suggest_categorical('model.hidden', ['()', '(32, 16)'])
        if trial.status == 'finished':
            expected.tell(asked, score(trial.overrides))
        elif trial.status == 'failed':
            expected.tell(asked, -math.inf)
        elif trial.status == 'pruned':
            asked.report(score(trial.overrides), 2)  # step 10, in epochs of 5 steps
            expected.tell(asked, state=optuna.trial.TrialState.PRUNED)
    asked = expected.ask(study._distributions(dimensions)).params
    found = suggest(dimensions, trials, 24, seed=5)
    assert asked.pop('model.hidden') == str(tuple(found.pop('model.hidden')))
    assert asked == found


def test_tpe_learns(dimensions, tmp_path):
    best = {
        sampler: np.mean(
            [
                np.mean([score(trial.overrides) for trial in found[-10:]])
                for seed in range(3)
                for found in [search(tmp_path / f'{sampler}{seed}', dimensions, 30, sampler, seed)]
            ]
        )
        for sampler in ('tpe', 'random')
    }
    assert best['tpe'] > best['random'] + 0.1


def test_failed_trials_teach_the_search_too(tmp_path):
    """Rates above 0.1 diverge. A search that forgot them would suggest as many at its end."""
    dimensions = space.search(['optim.learning_rate=log:1e-4:1'], defaults.get_config())
    trials = []
    for number in range(30):
        overrides = suggest(dimensions, trials, number)
        rate = overrides['optim.learning_rate']
        status = 'failed' if rate > 0.1 else 'finished'
        trials.append(add(tmp_path, number, overrides, status, 0.5 + rate))
    assert sum(trial.status == 'failed' for trial in trials[:10]) >= 1
    assert sum(trial.status == 'failed' for trial in trials[20:]) <= 4
    rates = [trial.overrides['optim.learning_rate'] for trial in trials[20:]]
    assert 0.01 < np.median(rates) < 0.1  # more is better up to there


@pytest.mark.parametrize('sampler', ['tpe', 'random', 'qmc'])
def test_a_finite_space_is_used_up_without_repetition(tmp_path, sampler):
    texts = ['model.activation=relu,gelu', 'train.batch_size=1:3', 'optim.nesterov=true,false']
    dimensions = space.search(texts, defaults.get_config())
    trials = []
    while (overrides := suggest(dimensions, trials, len(trials), sampler)) is not None:
        value = 0.5 + 0.1 * (overrides['model.activation'] == 'gelu')
        trials.append(add(tmp_path, len(trials), overrides, 'finished', value))
    assert len({json.dumps(trial.overrides) for trial in trials}) == len(trials) == 2 * 3 * 2


def test_qmc_fills_the_space_evenly(tmp_path):
    texts = ['optim.momentum=0:1', 'optim.learning_rate=log:1e-4:1']
    trials = search_points(tmp_path, space.search(texts, defaults.get_config()), 16)
    for name, scale in (
        ('optim.momentum', lambda value: value),
        ('optim.learning_rate', lambda value: (math.log10(value) + 4) / 4),
    ):
        cells = sorted(int(16 * scale(point[name])) for point in trials)
        assert cells == list(range(16))  # each sixteenth of the range has one


def search_points(folder, dimensions, count):
    points = []
    for number in range(count):
        points.append(suggest(dimensions, [], number, 'qmc'))
    return points


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(UserError, match='--sampler=gp needs torch: pip install torch'):
        study.check('gp')
    monkeypatch.setitem(sys.modules, 'optuna', None)
    with pytest.raises(UserError, match=r'needs optuna: pip install "neptune_jax\[sweep\]"'):
        study.check('tpe')
