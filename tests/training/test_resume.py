"""Runs that are interrupted, damaged, moved or repeated, and what they end with."""

import functools
import itertools
import os
import shutil
import signal
import threading

import jax
import numpy as np
import pytest

from neptune_jax import experiment as experiments
from neptune_jax.data import feed as feeds
from neptune_jax.errors import Preempted, UserError
from neptune_jax.reporting import figures
from neptune_jax.runs import checkpoints, reader
from neptune_jax.training import compiled, loop

pytestmark = pytest.mark.usefixtures('standard_promotion')


def without_times(workdir):
    return [{key: row[key] for key in row if key != 'time'} for row in reader.read_rows(workdir)]


def checkpoint_steps(workdir):
    folders = (workdir / 'checkpoints').iterdir()
    return sorted(int(path.name) for path in folders if path.is_dir())


def test_a_run_that_stops_half_way_ends_like_one_that_does_not(
    config, tmp_path, train_until, read_state
):
    loop.train_and_evaluate(config, tmp_path / 'whole')
    train_until(config, tmp_path / 'halves', step=3)
    assert reader.read_summary(tmp_path / 'halves')['status'] == 'failed'
    loop.train_and_evaluate(config, tmp_path / 'halves')

    assert without_times(tmp_path / 'halves') == without_times(tmp_path / 'whole')
    states = [read_state(config, tmp_path / name, 6)[0] for name in ('whole', 'halves')]
    jax.tree.map(np.testing.assert_array_equal, *states)


def wait_for_ever_after_a_signal():
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
    threading.Event().wait()


def test_a_signal_during_a_wait_for_data_ends_the_run_after_the_step_before(
    config, tmp_path, monkeypatch
):
    create = feeds.create

    def create_feed_that_hangs(dataset, parallel):
        feed = create(dataset, parallel)

        def batches(*args):
            yield from itertools.islice(feed.batches(*args), 2)
            wait_for_ever_after_a_signal()

        return feed._replace(batches=batches)

    monkeypatch.setattr(feeds, 'create', create_feed_that_hangs)
    with pytest.raises(Preempted, match='SIGTERM'):
        loop.train_and_evaluate(config, tmp_path / 'run')
    assert reader.read_summary(tmp_path / 'run')['status'] == 'preempted'
    assert checkpoint_steps(tmp_path / 'run') == [2]


def test_a_signal_during_an_evaluation_ends_it_and_the_resumed_run_does_it_again(
    config, tmp_path, monkeypatch
):
    whole = loop.train_and_evaluate(config, tmp_path / 'whole')
    monkeypatch.setattr(
        compiled, 'compile_evaluate', lambda *_: lambda *_: wait_for_ever_after_a_signal()
    )
    with pytest.raises(Preempted, match='SIGTERM'):
        loop.train_and_evaluate(config, tmp_path / 'run')
    monkeypatch.undo()
    assert checkpoint_steps(tmp_path / 'run') == [3]
    assert [row['step'] for row in reader.read_rows(tmp_path / 'run')] == [2, 3]
    assert all('val/loss' not in row for row in reader.read_rows(tmp_path / 'run'))
    run = loop.train_and_evaluate(config, tmp_path / 'run')
    assert without_times(tmp_path / 'run') == without_times(tmp_path / 'whole')
    assert (run['best'], run['test']) == (whole['best'], whole['test'])


def test_checkpoints_at_any_time_change_no_row(config, tmp_path):
    rows = []
    config.checkpoint.keep = 100
    for every in ('1 step', '0.0001 seconds', '1000 seconds'):
        config.checkpoint.every = every
        loop.train_and_evaluate(config, tmp_path / every)
        rows.append(without_times(tmp_path / every))
    assert rows == [rows[0]] * 3
    assert checkpoint_steps(tmp_path / '1 step') == [1, 2, 3, 4, 5, 6]
    assert checkpoint_steps(tmp_path / '0.0001 seconds') == [1, 2, 3, 4, 5, 6]
    assert set(checkpoint_steps(tmp_path / '1000 seconds')) <= {3, 6}


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(config, tmp_path, capsys):
    loop.train_and_evaluate(config, tmp_path)
    expected, rows = reader.read_summary(tmp_path), without_times(tmp_path)
    largest = max((tmp_path / 'checkpoints/6').rglob('*'), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-9])
    summary = tmp_path / 'summary.json'
    summary.write_text(summary.read_text().replace('finished', 'running'))
    capsys.readouterr()
    found = loop.train_and_evaluate(config, tmp_path)
    output = capsys.readouterr().out
    assert 'warning: the checkpoint of step 6 is damaged' in output
    assert 'resuming after step 3' in output
    assert without_times(tmp_path) == rows
    assert (found['best'], found['test']) == (expected['best'], expected['test'])


def test_a_run_goes_on_under_another_driver_and_number_of_devices(
    config, tmp_path, train_until, read_state
):
    loop.train_and_evaluate(config, tmp_path / 'whole')
    expected = read_state(config, tmp_path / 'whole', 6)[0]
    places = [('jit', 1), ('pmap', 8), ('shard_map', 2)]
    config.checkpoint.every = '1 step'
    for step, (driver, num_devices) in enumerate(places, 1):
        config.parallel.update(driver=driver, num_devices=num_devices)
        train_until(config, tmp_path / 'run', step)
    config.parallel.update(driver='jit', num_devices=4)
    loop.train_and_evaluate(config, tmp_path / 'run')
    found = read_state(config, tmp_path / 'run', 6)[0]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), found, expected
    )


def test_two_runs_of_a_config_are_equal_to_the_bit(config, tmp_path, read_state):
    config.train.deterministic = True
    config.update_from_flattened_dict({'augment.crop_padding': 2, 'model.dropout': 0.3})
    for name in ('one', 'two'):
        loop.train_and_evaluate(config, tmp_path / name)
    assert without_times(tmp_path / 'one') == without_times(tmp_path / 'two')
    states = [read_state(config, tmp_path / name, 6)[0] for name in ('one', 'two')]
    jax.tree.map(np.testing.assert_array_equal, *states)


def initial_params(config):
    """The parameters before the first step."""
    experiment = experiments.create(config)
    return experiments.init_state(experiment, experiments.read_initial_weights(experiment)).params


def test_another_runs_weights_are_where_a_run_starts(config, tmp_path, capsys, read_state):
    loop.train_and_evaluate(config, tmp_path / 'first')
    step = reader.best_step(tmp_path / 'first')
    expected = read_state(config, tmp_path / 'first', step)[0].params
    config.checkpoint.restore_from = str(tmp_path / 'first')
    params = initial_params(config)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert 'note ' not in capsys.readouterr().out
    config.data.split_seed = 1
    initial_params(config)
    note = "first' divided the same data in another way (data.split_seed: 0 there, 1 here); it may"
    assert note in capsys.readouterr().out

    config.update_from_flattened_dict(
        {'data.name': 'synthetic', 'data.classes': 3, 'data.examples': 600, 'data.channels': 1}
    )
    config.data.image_size = (28, 28)
    loop.train_and_evaluate(config, tmp_path / 'second')
    output = capsys.readouterr().out
    assert f'weights  of step {step} of {tmp_path}/first' in output
    assert 'new, for 3 classes instead of 10: params/Dense_0/bias, params/Dense_0/kernel' in output
    params = initial_params(config)
    assert params['Dense_0']['kernel'].shape == (7 * 7 * 8, 3)
    np.testing.assert_array_equal(params['Conv_1']['kernel'], expected['Conv_1']['kernel'])

    config.model.features = (4, 9)
    with pytest.raises(
        UserError, match=r'params/Conv_1/kernel: \(3, 3, 4, 8\) there, \(3, 3, 4, 9'
    ):
        loop.train_and_evaluate(config, tmp_path / 'third')
    config.checkpoint.restore_from = str(tmp_path)
    with pytest.raises(UserError, match='holds no run with a checkpoint'):
        loop.train_and_evaluate(config, tmp_path / 'third')
    assert not (tmp_path / 'third').exists()


def test_a_resumed_run_does_not_need_the_weights_it_started_from(config, tmp_path, train_until):
    loop.train_and_evaluate(config, tmp_path / 'first')
    config.checkpoint.restore_from = str(tmp_path / 'first')
    loop.train_and_evaluate(config, tmp_path / 'whole')
    train_until(config, tmp_path / 'second')
    shutil.rmtree(tmp_path / 'first')
    loop.train_and_evaluate(config, tmp_path / 'second')
    assert without_times(tmp_path / 'second') == without_times(tmp_path / 'whole')


def test_damaged_weights_are_no_start(config, tmp_path):
    loop.train_and_evaluate(config, tmp_path / 'first')
    step = reader.best_step(tmp_path / 'first')
    folder = tmp_path / f'first/checkpoints/{step}'
    largest = max(folder.rglob('*'), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    config.checkpoint.restore_from = str(tmp_path / 'first')
    with pytest.raises(UserError, match=r'checkpoint.restore_from=.* is damaged \(.*as it was wri'):
        loop.train_and_evaluate(config, tmp_path / 'second')
    assert not (tmp_path / 'second').exists()


def test_a_field_that_is_infinite_is_the_same_when_the_run_resumes(config, tmp_path, capsys):
    config.optim.clip_norm = float('inf')
    config.neptune.name = 'NaN'  # a name like another
    first = loop.train_and_evaluate(config, tmp_path / 'run')
    assert loop.train_and_evaluate(config, tmp_path / 'run') == first
    assert 'this run has finished before' in capsys.readouterr().out
    found = reader.read_config(tmp_path / 'run')
    assert found['optim']['clip_norm'] == float('inf')
    assert found['neptune']['name'] == 'NaN'


@pytest.mark.parametrize('place', ['restore', 'figure'])
def test_a_signal_during_the_test_damages_nothing_and_the_test_is_repeated(
    config, tmp_path, monkeypatch, place
):
    def signalled(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    if place == 'figure':
        monkeypatch.setattr(figures, 'confusion_matrix', signalled)
    else:
        # The first restore is that of the best checkpoint; the run is new.
        monkeypatch.setattr(checkpoints.ocp.CheckpointManager, 'restore', signalled)
    with pytest.raises(Preempted, match='SIGTERM'):
        loop.train_and_evaluate(config, tmp_path)
    monkeypatch.undo()
    assert reader.read_summary(tmp_path)['status'] == 'preempted'
    assert not (tmp_path / 'damaged').exists()
    assert loop.train_and_evaluate(config, tmp_path)['status'] == 'finished'
    assert (tmp_path / 'artifacts/confusion_matrix.png').is_file()


def test_neither_a_stopped_nor_a_finished_run_is_continued_on_other_data(
    config, tmp_path, monkeypatch
):
    raw, workdir = tmp_path / 'raw.npz', tmp_path / 'run'
    images, labels = np.random.default_rng(0).random((80, 8, 8)), np.arange(80) % 2
    config.data.update(name='arrays', path=str(raw), dir=str(tmp_path / 'data'))
    config.train.batch_size = 32
    monkeypatch.setattr(feeds, 'create', lambda *_: signal.raise_signal(signal.SIGTERM))
    np.savez(raw, images=images[:70], labels=labels[:70])
    for _ in range(2):  # on the same data it goes on
        with pytest.raises(Preempted):
            loop.train_and_evaluate(config, workdir)
    np.savez(raw, images=images, labels=labels)
    summary = workdir / 'summary.json'
    for status in ('preempted', 'finished'):
        summary.write_text(summary.read_text().replace('preempted', status))
        before = {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}
        with pytest.raises(UserError, match=r'holds a run on other data .*train split: .* there'):
            loop.train_and_evaluate(config, workdir)
        assert before == {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}
