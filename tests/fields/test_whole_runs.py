"""A whole run of the loop, whose rows and results are those of NumPy."""

import jax
import numpy as np
import pytest

from neptune_jax import experiment as experiments
from neptune_jax.data import feed as feeds
from neptune_jax.runs import reader
from neptune_jax.training import loop
from tests.fields import regression

FIELDS = {
    'train.steps': 12,
    'log.every': '1 step',
    'eval.every': '4 steps',
    'checkpoint.every': '5 steps',
    'optim.name': 'sgd',
    'optim.learning_rate': 0.2,
    'optim.momentum': 0.8,
    'optim.weight_decay': 0.1,
    'optim.clip_norm': 1.0,
    'optim.schedule': 'linear',
    'optim.warmup': '25%',
    'loss.label_smoothing': 0.3,
    'loss.class_weights': 'balanced',
}


@pytest.mark.usefixtures('standard_promotion')
@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'parallel.num_devices': 2, 'train.accumulate': 5, 'eval.batch_size': 6},
        {'data.mode': 'host', 'parallel.num_devices': 2, 'parallel.driver': 'shard_map'},
        {'data.mode': 'stream', 'data.workers': 0},
    ],
    ids=['jit', 'pmap, accumulate', 'shard_map, host', 'stream'],
)
def test_a_run_is_that_of_numpy(create, tmp_path, monkeypatch, fields):
    workers, create_feed = [], feeds.create

    def recorded_feed(*args):
        feed = create_feed(*args)

        def batches(order, start, stop, *asked):
            workers.append(asked)
            return feed.batches(order, start, stop, *asked)

        return feed._replace(batches=batches)

    monkeypatch.setattr(feeds, 'create', recorded_feed)
    experiment = create(FIELDS | fields)
    layer = jax.device_get(experiments.init_state(experiment).params['Dense_0'])
    params = [np.float64(layer[name]) for name in ('kernel', 'bias')]
    batches = [experiment.order[step] for step in range(12)]
    rates = 0.2 * np.array([*np.arange(1, 4) / 4, *np.arange(9, 0, -1) / 9])
    options = {'smoothing': 0.3, 'class_weights': 60 / (10 * regression.COUNTS), 'clip': 1.0}
    update = regression.sgd(0.8, decay=0.1)
    expected, validations = [], {}
    for first in (0, 4, 8):
        part = slice(first, first + 4)
        rows, params = regression.train(
            params, batches[part], rates[part], update=update, **options
        )
        expected += list(rows)
        validations[first + 4] = [*params]

    summary = loop.train_and_evaluate(experiment.config, tmp_path)
    assert summary['status'] == 'finished'
    rows = reader.read_rows(tmp_path)
    trained = [row for row in rows if 'train/loss' in row]
    assert [row['step'] for row in trained] == list(range(1, 13))
    names = ('train/loss', 'train/grad_norm', 'train/learning_rate')
    found = [[row[name] for name in names] for row in trained]
    np.testing.assert_allclose(found, expected, rtol=1e-4)

    def results(step, part):
        examples = np.arange(100)[regression.SPLITS[part]]
        logits = regression.standardized(examples) @ validations[step][0] + validations[step][1]
        values, _ = regression.losses(logits, regression.LABELS[examples])
        correct = logits.argmax(axis=1) == regression.LABELS[examples]
        return {'loss': pytest.approx(values.mean(), rel=1e-4), 'accuracy': correct.mean()}

    validated = {row['step']: row for row in rows if 'val/loss' in row}
    assert list(validated) == [4, 8, 12]
    for step, row in validated.items():
        assert {name: row[f'val/{name}'] for name in ('loss', 'accuracy')} == results(step, 'val')
    best = max(validated, key=lambda step: (results(step, 'val')['accuracy'], step))
    assert summary['best']['step'] == best
    assert {name: summary['test'][name] for name in ('loss', 'accuracy')} == results(best, 'test')
    assert workers[0] == (fields.get('data.workers', 1),)
