"""The loop, in this process, on two virtual devices unless a test says otherwise."""

import csv
import gzip
import hashlib
import io
import json
import logging
import sys
import tarfile
import types

import jax
import jaxlib
import numpy as np
import optax
import pytest
import sklearn.metrics
from ml_collections import ConfigDict
from PIL import Image

from neptune_jax import defaults
from neptune_jax import experiment as experiments
from neptune_jax.data import dataset
from neptune_jax.data.sources.cifar import Cifar10
from neptune_jax.data.sources.idx import Mnist
from neptune_jax.devices import compiling
from neptune_jax.errors import UserError
from neptune_jax.learning import losses
from neptune_jax.reporting import figures
from neptune_jax.reporting.page import mistakes
from neptune_jax.runs import files, reader
from neptune_jax.training import loop

pytestmark = pytest.mark.usefixtures('standard_promotion')


def test_a_run_leaves_what_the_format_promises(config, tmp_path):
    summary = loop.train_and_evaluate(config, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        'config.json',
        'environment.json',
        'metrics.jsonl',
        'summary.json',
        'checkpoints',
        'artifacts',
        'report.html',
        '.lock',
    }
    assert json.loads((tmp_path / 'summary.json').read_text()) == summary
    assert set(summary) == {
        'status',
        'step',
        'epochs',
        'train_seconds',
        'images_per_second',
        'params',
        'best',
        'val',
        'test',
    }
    assert (summary['status'], summary['step']) == ('finished', 6)
    assert summary['epochs'] == pytest.approx(6 / (2250 // 64), abs=1e-3)
    assert summary['params'] == 4 * 9 + 4 + 8 * 4 * 9 + 8 + 7 * 7 * 8 * 10 + 10
    assert set(summary['test']) == {
        'loss',
        'accuracy',
        'precision_macro',
        'recall_macro',
        'f1_macro',
        'top5_accuracy',
        'ece',
        'count',
        'classes',
    }
    assert (summary['val']['count'], summary['test']['count']) == (250, 500)

    rows = reader.read_rows(tmp_path)
    trained = [row for row in rows if 'train/loss' in row]
    validated = [row for row in rows if 'val/loss' in row]
    # Rows every two steps, and wherever the loop stops to evaluate: every three.
    assert [row['step'] for row in trained] == [2, 3, 4, 6]
    assert [row['step'] for row in validated] == [3, 6]
    assert len(rows) == 6
    keys = {'train/loss', 'train/accuracy', 'train/grad_norm', 'train/learning_rate'}
    assert all(set(row) == keys | {'step', 'time'} for row in trained)
    # Half a cosine over six steps: the rate of the last step in each interval.
    rates = 0.001 * (1 + np.cos(np.pi * (np.array([2, 3, 4, 6]) - 1) / 6))
    np.testing.assert_allclose([row['train/learning_rate'] for row in trained], rates, rtol=1e-5)

    environment = json.loads((tmp_path / 'environment.json').read_text())
    assert environment['packages']['jax'] == jax.__version__
    assert environment['devices'] == ['cpu'] * 2
    assert environment['data']['sizes'] == {'train': 2250, 'val': 250, 'test': 500}


def test_results_equal_what_scikit_learn_finds_in_the_best_checkpoint(config, tmp_path, read_state):
    config.train.steps = 30
    summary = loop.train_and_evaluate(config, tmp_path)
    best = max(
        (row for row in reader.read_rows(tmp_path) if 'val/accuracy' in row),
        key=lambda row: (row['val/accuracy'], row['step']),
    )
    assert summary['best'] == {'step': best['step'], 'accuracy': best['val/accuracy']}
    assert summary['val']['accuracy'] == best['val/accuracy']

    state, data_of_checkpoint, experiment = read_state(config, tmp_path, best['step'])
    assert data_of_checkpoint == dataset.load(config.data).preprocessing | {'interval': []}
    data = dataset.load(config.data)
    test = data.splits['test']
    pixels = data.images[data.splits['train']] / 255
    images = ((data.images[test] / 255 - pixels.mean()) / pixels.std()).astype(np.float32)
    logits = np.asarray(experiment.model.apply({'params': state.params}, images), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels, predictions = data.labels[test], logits.argmax(axis=-1)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, average='macro', zero_division=0
    )
    expected = {
        'loss': sklearn.metrics.log_loss(labels, probabilities),
        'accuracy': sklearn.metrics.accuracy_score(labels, predictions),
        'precision_macro': precision,
        'recall_macro': recall,
        'f1_macro': f1,
        'top5_accuracy': sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5),
        'count': 500,
    }
    assert {key: summary['test'][key] for key in expected} == pytest.approx(expected, rel=1e-5)

    with np.load(tmp_path / 'artifacts/predictions.npz') as stored:
        np.testing.assert_array_equal(stored['index'], np.arange(2500, 3000))  # after training's
        np.testing.assert_array_equal(stored['label'], labels)
        np.testing.assert_array_equal(stored['prediction'], predictions)
        np.testing.assert_allclose(stored['confidence'], probabilities.max(axis=-1), rtol=1e-4)
        losses_of_examples = -np.log(probabilities[np.arange(500), labels])
        np.testing.assert_allclose(stored['loss'], losses_of_examples, rtol=1e-3, atol=1e-5)

    with (tmp_path / 'artifacts/confusion_matrix.csv').open() as file:
        header, *table = csv.reader(file)
    assert header[1:] == list(data.class_names)
    np.testing.assert_array_equal(
        np.array([row[1:] for row in table], int),
        sklearn.metrics.confusion_matrix(labels, predictions),
    )
    with (tmp_path / 'artifacts/classification_report.csv').open() as file:
        report = list(csv.DictReader(file))
    per_class = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(10), zero_division=0
    )
    columns = zip(('precision', 'recall', 'f1', 'support'), per_class, strict=True)
    for name, values in columns:
        np.testing.assert_allclose([float(row[name]) for row in report], values, atol=1e-6)
    names = ('confusion_matrix', 'learning_curves', 'reliability_diagram', 'worst_mistakes')
    for name in names:
        with Image.open(tmp_path / f'artifacts/{name}.png') as image:
            assert min(image.size) > 200
            assert image.convert('L').getextrema() == (0, 255)


def test_the_averaged_parameters_are_what_is_evaluated(config, tmp_path, read_state):
    config.optim.ema_decay = 0.5
    summary = loop.train_and_evaluate(config, tmp_path)
    state, _, experiment = read_state(config, tmp_path, summary['best']['step'])
    data = experiment.dataset
    pixels = data.images[data.splits['train']] / 255
    images = ((data.images[data.splits['test']] / 255 - pixels.mean()) / pixels.std()).astype('f4')
    labels = data.labels[data.splits['test']]
    logits = experiment.model.apply({'params': state.ema}, images)
    correct = np.asarray(logits).argmax(axis=-1) == labels
    assert summary['test']['accuracy'] == correct.mean()
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.ema, state.params)
    assert max(jax.tree.leaves(apart)) > 1e-4


def test_some_steps_are_traced(config, tmp_path):
    config.train.profile_steps = (3, 4)
    loop.train_and_evaluate(config, tmp_path)
    (path,) = tmp_path.glob('profile/**/*.trace.json.gz')
    with gzip.open(path) as file:
        events = json.load(file)['traceEvents']
    steps = {event['args']['step_num'] for event in events if event.get('name') == 'train'}
    assert steps == {'3', '4'}


def test_the_operation_that_makes_a_nan_is_named(config, tmp_path):
    config.train.debug_nans = True
    config.parallel.update(driver='jit', num_devices=1)
    config.optim.name = 'sgd'
    config.optim.learning_rate = 1e30
    with pytest.raises(UserError, match=r'invalid value \(.*\) encountered in \w+ at .*, line \d+'):
        loop.train_and_evaluate(config, tmp_path)


def test_a_finished_run_is_not_run_again(config, tmp_path, capsys):
    first = loop.train_and_evaluate(config, tmp_path)
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    assert loop.train_and_evaluate(config, tmp_path) == first
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before
    assert 'this run has finished before' in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(config, tmp_path):
    config.optim.name = 'sgd'
    config.optim.learning_rate = 1e30
    with pytest.raises(UserError, match=r'the loss is (nan|inf) at step 2; try a lower optim'):
        loop.train_and_evaluate(config, tmp_path)
    summary = reader.read_summary(tmp_path)
    assert summary['status'] == 'failed'
    assert 'at step 2' in summary['error']
    assert np.isnan(reader.read_rows(tmp_path)[0]['train/loss'])
    assert not (tmp_path / 'checkpoints/3').exists()


def test_without_a_validation_split_the_last_state_is_tested(config, tmp_path):
    config.data.val_fraction = 0.0
    summary = loop.train_and_evaluate(config, tmp_path)
    assert 'best' not in summary
    assert 'val' not in summary
    assert summary['test']['count'] == 500
    assert all('val/loss' not in row for row in reader.read_rows(tmp_path))


@pytest.mark.parametrize('driver', ['jit', 'pmap'])
def test_several_steps_in_one_program_do_what_they_do_one_by_one(
    config, tmp_path, driver, read_state
):
    config.update_from_flattened_dict(
        {'parallel.driver': driver, 'train.steps': 12, 'log.every': '5 steps', 'eval.every': '50%'}
    )
    config.update_from_flattened_dict({'augment.crop_padding': 2, 'model.dropout': 0.3})
    found = []
    for name, count in (('one', 1), ('several', 3)):
        config.train.steps_per_call = count
        loop.train_and_evaluate(config, tmp_path / name)
        rows = reader.read_rows(tmp_path / name)
        found.append((rows, read_state(config, tmp_path / name, 12)[0]))
    (rows, state), (other_rows, other_state) = found
    assert [row['step'] for row in rows if 'train/loss' in row] == [5, 6, 10, 12]
    assert [row.keys() for row in rows] == [row.keys() for row in other_rows]
    for row, other in zip(rows, other_rows, strict=True):
        assert row == pytest.approx(other | {'time': row['time']}, rel=1e-4)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5),
        state,
        other_state,
    )


@pytest.mark.parametrize('driver', ['jit', 'pmap', 'shard_map'])
def test_each_step_is_compiled_once(config, tmp_path, caplog, driver):
    config.parallel.driver = driver
    caplog.set_level(logging.DEBUG, compiling.__name__)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger='jax'):
        loop.train_and_evaluate(config, tmp_path)
    compiled = [
        message for message in caplog.messages if message.startswith('Finished XLA compilation of')
    ]
    assert len(compiled) > 2, 'the log has changed: this test sees nothing'
    # The training step and the evaluation step, for two splits that no batch size divides. What
    # pmap compiles goes by a name of its own.
    name = '(_fun)' if driver == 'pmap' else '(step)'
    # XLA's CPU backend before 0.12 may compute the pooling of the evaluation wrongly.
    again = sum(message.startswith('compiling again') for message in caplog.messages)
    assert again == (jaxlib.version.__version_info__ < (0, 12))
    assert sum(name in message for message in compiled) == 2 + again, compiled


@pytest.mark.parametrize('driver', ['jit', 'pmap'])
def test_results_do_not_depend_on_devices_or_batch_of_the_evaluation(config, tmp_path, driver):
    config.parallel.driver = driver
    results = []
    for batch_size in (8, 512):
        config.eval.batch_size = batch_size
        results.append(loop.train_and_evaluate(config, tmp_path / str(batch_size))['test'])
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim])
    return header + b''.join(n.to_bytes(4, 'big') for n in array.shape) + array.tobytes()


def test_two_steps_on_archives_in_the_idx_format(config, tmp_path, monkeypatch):
    labels = (np.arange(300) % 10).astype(np.uint8)
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28)).astype(np.uint8)
    contents = [
        idx_bytes(part) for part in (images[:240], labels[:240], images[240:], labels[240:])
    ]
    digests = {}
    for name, content in zip(Mnist.SHA256, contents, strict=True):
        (tmp_path / name).write_bytes(gzip.compress(content))
        digests[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(Mnist, 'SHA256', digests)
    assert two_steps(config, tmp_path, name='mnist', archive_dir=str(tmp_path))['count'] == 60


def test_two_steps_on_an_archive_in_the_format_of_cifar(config, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = tmp_path / 'cifar-10-binary.tar.gz'
    with tarfile.open(path, 'w:gz') as archive:
        for name in (name for names in Cifar10.FILES.values() for name in names):
            records = rng.integers(0, 256, (50, 3073)).astype(np.uint8)
            records[:, 0] %= 10
            member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
            member.size = records.size
            archive.addfile(member, io.BytesIO(records.tobytes()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(Cifar10, 'SHA256', {path.name: digest})
    assert two_steps(config, tmp_path, name='cifar10', archive_dir=str(tmp_path))['count'] == 50


def test_two_steps_on_synthetic_images_and_on_the_same_as_a_tfds_data_set(config, tmp_path):
    config.data.update(image_size=(16, 16), channels=3)
    first = two_steps(config, tmp_path, name='synthetic', examples=600)
    name, default = 'tfds:synthetic/600x16x16x3_10_0', defaults.FIELDS['data.examples'].default
    assert two_steps(config, tmp_path, name=name, examples=default) == first


def two_steps(config, tmp_path, **fields):
    config.data.update(fields | {'dir': str(tmp_path / 'data')})
    config.train.steps = 2
    return loop.train_and_evaluate(config, tmp_path / fields['name'].replace(':', '_'))['test']


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('train.batch_size', 13, r'train.batch_size=13 cannot be divided evenly over 2 device'),
        ('eval.batch_size', 101, r'eval.batch_size=101 cannot be divided evenly'),
        ('train.batch_size', 2256, r'train.batch_size=2256 is more than the 2250 training'),
        ('train.steps', 0, r'train.steps=0 must be at least 1'),
        ('seed', -1, r'seed=-1 must be at least 0'),
        ('data.split_seed', -1, r'data.split_seed=-1 must be at least 0'),
        ('data.mode', 'disk', r"data.mode='disk' is unknown; choose one of: auto, device, host"),
        ('data.sampler', 'random', r"data.sampler='random' is unknown; choose one of: shuffle"),
        ('loss.class_weights', 'x', r"loss.class_weights='x' is unknown; choose one of: none"),
        ('augment.flip', 'x', r"augment.flip='x' is unknown; choose one of: none, random"),
        ('augment.mixup', -0.1, r'augment.mixup=-0.1 must be from 0 to 100'),
        ('train.steps_per_call', 0, r'train.steps_per_call=0 must be from 1 to 65536'),
        ('train.accumulate', 3, r'train.accumulate=3 does not divide the 32 examples of a batch'),
        ('train.profile_steps', (3, 7), r'train.profile_steps=\(3, 7\) must be the first and'),
        ('optim.ema_decay', 1.0, r'optim.ema_decay=1.0 must be at least 0 and below 1'),
        ('parallel.num_devices', 9, r'parallel.num_devices=9: there are 8 \(cpu\)'),
        ('checkpoint.restore_from', 'x', r"checkpoint.restore_from='x' holds no run with a"),
        ('checkpoint.keep', 0, r'checkpoint.keep=0 must be at least 1'),
        ('loss.name', 'mse', r"loss.name='mse' is unknown; choose one of: cross_entropy, bce"),
        ('loss.label_smoothing', 1.0, r'loss.label_smoothing=1.0 must be at least 0 and below 1'),
        ('optim.name', 'lion', r"optim.name='lion' is unknown; choose one of: sgd, adam, adamw"),
        ('model.name', 'vit', r"model.name='vit' is unknown; choose one of: cnn"),
        ('data.val_fraction', 1.0, r'data.val_fraction=1.0 must be at least 0 and below 1'),
        ('eval.every', 'often', r"eval.every='often' is not a length"),
        ('parallel.driver', 'xla', r"parallel.driver='xla' is unknown; choose one of: auto, jit"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_before_anything_is_written(
    config, tmp_path, field, value, message
):
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message) as caught:
        loop.train_and_evaluate(config, tmp_path / 'run')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('epochs', [0.0, -1.0, float('nan'), float('inf')])
def test_a_run_of_no_length_is_refused(config, tmp_path, epochs):
    config.train.steps = None
    config.train.epochs = epochs
    with pytest.raises(UserError, match=r'train.epochs=.* must be above 0 and below 2\*\*31'):
        loop.train_and_evaluate(config, tmp_path / 'run')


def test_without_a_test_split_a_run_finishes_and_says_so(config, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8)
    np.savez(tmp_path / 'arrays.npz', images=images, labels=np.arange(300) % 3)
    fields = {'name': 'arrays', 'path': str(tmp_path / 'arrays.npz'), 'test_fraction': 0.0}
    config.data.update(fields)
    config.report.every_run = False
    summary = loop.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run/report.html').exists()
    sizes = files.read_json(tmp_path / 'run/environment.json')['data']['sizes']
    assert (sizes['train'] + sizes['val'], sizes['test']) == (300, 0)
    assert (summary['status'], summary['val']['count']) == ('finished', sizes['val'])
    assert 15 < sizes['val'] < 45  # a tenth; the bytes of each image decide
    assert 'test' not in summary
    assert 'test     none: the data have no test split' in capsys.readouterr().out


def test_a_figure_that_cannot_be_drawn_costs_a_warning_and_no_result(
    config, tmp_path, monkeypatch, capsys
):
    def fail(*args):
        raise ValueError('no such font')

    monkeypatch.setattr(figures, 'confusion_matrix', fail)
    monkeypatch.setattr(mistakes, 'worst', fail)
    summary = loop.train_and_evaluate(config, tmp_path)
    assert (summary['status'], summary['test']['count']) == ('finished', 500)
    output = capsys.readouterr().out
    path = tmp_path / 'artifacts/confusion_matrix.png'
    assert f'warning: {path} was not drawn (ValueError: no such font)' in output
    assert f'warning: {tmp_path}/report.html was not written (ValueError: no such font)' in output
    assert {path.name for path in (tmp_path / 'artifacts').iterdir()} == {
        'data_report.json',
        'predictions.npz',
        'confusion_matrix.csv',
        'classification_report.csv',
        'learning_curves.png',
        'reliability_diagram.png',
        'worst_mistakes.png',
    }


def test_results_are_saved_before_figures_are_drawn(config, tmp_path, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, 'learning_curves', die)
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(config, tmp_path)
    assert reader.read_summary(tmp_path)['test']['count'] == 500


@pytest.fixture
def own_parts(monkeypatch):
    """A module of one's own, as a person has it beside their config."""
    module = types.ModuleType('own_parts')

    def optimizer(config, schedule, in_steps):
        assert in_steps('50%', 'optim.options.half') == 3
        return optax.sgd(lambda step: config.options.factor * schedule(step))

    def schedule(config, decay_steps, in_steps):
        return optax.constant_schedule(config.learning_rate / 2)

    def loss(logits, labels, label_smoothing=0.0):
        return 2 * losses.cross_entropy(logits, labels, label_smoothing)

    def darken(key, image):
        return image / 2

    for part in (optimizer, schedule, loss, darken):
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, 'own_parts', module)


def test_parts_of_ones_own_train_like_those_of_the_package(config, tmp_path, own_parts):
    config.update_from_flattened_dict({'optim.name': 'sgd', 'optim.momentum': 0.0})
    config.update_from_flattened_dict({'optim.schedule': 'constant', 'optim.learning_rate': 0.1})
    loop.train_and_evaluate(config, tmp_path / 'package')
    config.optim.update(name='own_parts:optimizer', schedule='own_parts:schedule')
    config.optim.options = ConfigDict({'factor': 1.0})
    config.loss.name = 'own_parts:loss'  # twice the loss at half the rate
    loop.train_and_evaluate(config, tmp_path / 'own')
    package, own = (reader.read_rows(tmp_path / name) for name in ('package', 'own'))
    np.testing.assert_allclose(
        [row['train/loss'] for row in own if 'train/loss' in row],
        [2 * row['train/loss'] for row in package if 'train/loss' in row],
        rtol=1e-5,
    )
    assert own[0]['train/learning_rate'] == pytest.approx(0.05)


def test_an_augmentation_of_ones_own_changes_the_images(config, own_parts):
    config.augment.extra = ('own_parts:darken',)
    experiment = experiments.create(config)
    image = np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    numbers = np.arange(64, dtype=np.int32)
    batch = {'image': image, 'label': numbers, 'index': numbers}
    found = experiment.augment(batch, jax.random.key(0), np.int32(0), np.int32(0))
    np.testing.assert_allclose(found['image'], image / 2)


def test_of_equal_accuracies_the_last_is_best_everywhere(config, tmp_path, capsys):
    config.optim.learning_rate = 0.0
    config.checkpoint.keep = 1
    summary = loop.train_and_evaluate(config, tmp_path)
    accuracies = [row['val/accuracy'] for row in reader.read_rows(tmp_path) if 'val/loss' in row]
    assert len(accuracies) == 2
    assert accuracies[0] == accuracies[1]
    assert summary['best'] == {'step': 6, 'accuracy': accuracies[0]}
    assert capsys.readouterr().out.count('best so far') == 2
    assert reader.checkpoint_steps(tmp_path) == [6]
