"""Which trials are given up: by hand-made curves, and by rows of run directories."""

import json
import math

import numpy as np
import pytest

from neptune_jax.sweeping import objectives, pruning
from neptune_jax.sweeping.objectives import Curve
from neptune_jax.sweeping.trials import Trial

ACCURACY = objectives.parse('val/accuracy')


def curve(*values, start=1.0, every=1.0, sign=1):
    epochs = start + every * np.arange(len(values))
    return Curve(tuple(zip(epochs.tolist(), values, strict=True)), sign)


def test_the_median_rule():
    others = [curve(0.1, 0.2), curve(0.3, 0.4), curve(0.5, 0.6), curve(0.7, 0.8)]
    assert pruning.median(curve(0.5), others) == ''  # the median after an epoch is 0.4
    assert 'median 0.4000 of 4 others' in pruning.median(curve(0.39), others)
    assert pruning.median(curve(0.39), others[:3]) == ''  # too few
    assert pruning.median(curve(0.39), [*others[:3], Curve((), 1)]) == ''
    assert pruning.median(curve(0.45, 0.2), others) != ''  # after two epochs it is 0.5
    losses = [curve(*(1 - y for _, y in other.points), sign=-1) for other in others]
    assert pruning.median(curve(0.5, sign=-1), losses) == ''
    assert pruning.median(curve(0.61, sign=-1), losses) != ''


def test_asha_keeps_a_third_at_each_rung():
    values = np.random.default_rng(0).permutation(30) / 30
    curves = [curve(*[value] * 3) for value in values]
    for epochs in (1, 2, 3):
        kept = [
            value
            for value, each in zip(values, curves, strict=True)
            if not pruning.asha(
                Curve(each.points[:epochs], 1), [other for other in curves if other is not each]
            )
        ]
        assert sorted(kept) == sorted(values)[20:]
    assert pruning.asha(curve(0.1), [curve(0.9)]) == ''  # two are too few
    assert pruning.asha(curve(0.1, start=0.5), curves) == ''  # not yet at the first rung
    assert 'after 3 epochs' in pruning.asha(curve(*[0.1] * 8), curves)  # not after 8


def test_one_that_diverged_is_worse_than_all():
    others = [curve(0.1)] * 4
    assert pruning.median(curve(-math.inf), others) != ''


def trial(tmp_path, name, accuracies, batch_size=100, every=1.0, train=1000, epochs=10.0, **more):
    """A run directory, validated `every` so many epochs."""
    folder = tmp_path / name
    folder.mkdir()
    per_epoch = train // batch_size
    rows = []
    for number, accuracy in enumerate(accuracies, 1):
        step = round(number * every * per_epoch)
        rows += [{'step': step, 'train/loss': 1.0}]  # rows that are no validations
        rows += [{'step': step, 'val/loss': 1.0, 'val/accuracy': accuracy} | more]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    config = {'train': {'batch_size': batch_size, 'epochs': epochs, 'steps': None}}
    (folder / 'config.json').write_text(json.dumps(config))
    about = {'data': {'sizes': {'train': train, 'val': 100}}}
    (folder / 'environment.json').write_text(json.dumps(about))
    return Trial(tmp_path, name, 0, {})


def test_curves_are_over_epochs_whatever_the_batch_size(tmp_path):
    small = objectives.read_curve(trial(tmp_path, 'small', [0.1, 0.2], batch_size=10), ACCURACY)
    large = objectives.read_curve(trial(tmp_path, 'large', [0.1, 0.2], batch_size=300), ACCURACY)
    assert small.points == large.points == ((1.0, 0.1), (2.0, 0.2))
    assert (small.epoch, small.length, small.best(1.5), small.best(2.5)) == (2.0, 10.0, 0.1, None)
    assert objectives.read_curve(Trial(tmp_path, 'absent', 0, {}), ACCURACY).points == ()


def test_unequal_rows_do_not_mislead(tmp_path):
    """A trial with few, late rows is compared after the same epochs, not by the rows' numbers.

    All learn alike: accuracy 0.1 a epoch. By the number of its rows, the slowly validated one would
    look far better, and those that are validated often far worse, than they are.
    """
    often = [
        trial(
            tmp_path,
            f'often{i}',
            [0.01 * n for n in range(1, 31)],
            every=0.1,
            batch_size=20 + 5 * i,
        )
        for i in range(5)
    ]
    seldom = trial(tmp_path, 'seldom', [0.3], every=3.0)
    rows = [objectives.read_curve(each, ACCURACY) for each in often]
    for rule in (pruning.median, pruning.asha):
        assert rule(objectives.read_curve(seldom, ACCURACY), rows) == ''
    pruner = pruning.Pruner('median', ACCURACY)
    assert pruner.reason(seldom, [*often, seldom]) == ''
    early = trial(tmp_path, 'early', [0.15], every=1.5)  # as good as all after 1.5 epochs
    assert pruner.reason(early, [*often, seldom, early]) == ''
    bad = trial(tmp_path, 'bad', [0.2], every=3.0)
    assert 'after 3 epochs' in pruner.reason(bad, [*often, bad])


def test_a_trial_is_judged_once_at_each_rung_and_never_at_its_end(tmp_path):
    good = [trial(tmp_path, f'good{i}', [0.9] * 3) for i in range(5)]
    bad = trial(tmp_path, 'bad', [0.1, 0.1])
    pruner = pruning.Pruner('asha', ACCURACY)
    assert pruner.reason(bad, good)
    assert pruner.reason(bad, good) == ''
    at_end = trial(tmp_path, 'end', [0.1] * 3, epochs=3.0)
    assert pruning.Pruner('asha', ACCURACY).reason(at_end, good) == ''


def test_a_loss_that_is_not_finite_is_the_worst(tmp_path):
    bad = trial(tmp_path, 'bad', [0.9], **{'val/loss': 'NaN'})
    assert objectives.read_curve(bad, ACCURACY).points == ((1.0, -math.inf),)


def test_the_objective_is_a_validation_metric_at_the_best_checkpoint():
    summary = {
        'best': {'step': 3, 'accuracy': 0.8},
        'val': {'accuracy': 0.8, 'loss': 0.6},
        'test': {'accuracy': 0.99},
    }
    assert ACCURACY.of_best(summary) == 0.8
    loss = objectives.parse('val/loss')
    assert (loss.of_best(summary), loss.sign, loss.worst) == (0.6, -1, math.inf)
    assert ACCURACY.of_best({}) is None
    for key, message in (
        ('test/accuracy', 'no test any more'),
        ('val/acc', 'choose one of'),
        ('x', 'choose'),
    ):
        with pytest.raises(Exception, match=message):
            objectives.parse(key)
