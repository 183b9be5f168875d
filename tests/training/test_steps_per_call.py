"""Several steps in one program: the rows and the bits depend on nothing that may change."""

import json
import shutil

import jax
import numpy as np
import pytest

from neptune_jax.runs import reader
from neptune_jax.training import loop

pytestmark = pytest.mark.usefixtures('standard_promotion')


@pytest.fixture
def config(config):
    """Calls of 4, 4, 1, 1, 4 and 4 steps; log intervals of three end within them."""
    config.parallel.update(driver='jit', num_devices=1)
    config.model.features = (4,)
    config.update_from_flattened_dict({'train.steps': 18, 'train.steps_per_call': 4})
    config.update_from_flattened_dict({'eval.every': '10 steps', 'log.every': '3 steps'})
    config.checkpoint.keep = 100
    return config


def rows_of(workdir):
    return [{key: row[key] for key in row if key != 'time'} for row in reader.read_rows(workdir)]


def means(rows, ends):
    """The rows of log intervals that end at some steps, from rows of single steps."""
    found, start = [], 0
    for end in ends:
        inside = [row for row in rows if 'train/loss' in row and start < row['step'] <= end]
        assert len(inside) == end - start
        row = {key: float(np.mean([each[key] for each in inside])) for key in inside[0]}
        last = inside[-1]
        found.append(row | {key: last[key] for key in ('step', 'train/learning_rate')})
        start = end
    return found


def test_rows_and_bits_do_not_depend_on_where_checkpoints_are_or_rows_end(
    config, tmp_path, read_state
):
    rows, states, saved = {}, {}, {}
    for every in ('1 step', '3 steps', '1000 seconds'):
        config.checkpoint.every = every
        config.log.every = '1 step' if every == '3 steps' else '3 steps'
        loop.train_and_evaluate(config, tmp_path / every)
        rows[every] = rows_of(tmp_path / every)
        states[every] = read_state(config, tmp_path / every, 18)[0]
        saved[every] = reader.checkpoint_steps(tmp_path / every)
    # A checkpoint that is due within a call is saved after it: at 3 (4), 6 (8), 12 (14), 15 (18).
    assert saved['1 step'] == [4, 8, 9, 10, 14, 18]
    assert {4, 8, 9, 14, 18} <= set(saved['3 steps']) <= {4, 8, 9, 10, 14, 18}
    assert {18} <= set(saved['1000 seconds']) <= {10, 18}
    assert rows['1 step'] == rows['1000 seconds']
    for every in ('3 steps', '1000 seconds'):
        jax.tree.map(np.testing.assert_array_equal, states['1 step'], states[every])
    trained = [row for row in rows['1 step'] if 'train/loss' in row]
    assert trained == means(rows['3 steps'], [3, 6, 9, 10, 12, 15, 18])
    validated = [[row for row in found if 'val/loss' in row] for found in rows.values()]
    assert validated == [validated[0]] * 3


def test_a_run_that_resumes_within_a_log_interval_ends_with_the_same_bits(
    config, tmp_path, train_until, read_state
):
    config.checkpoint.every = '1 step'
    loop.train_and_evaluate(config, tmp_path / 'whole')
    train_until(config, tmp_path / 'run', step=14)
    config.checkpoint.every = '7 steps'
    loop.train_and_evaluate(config, tmp_path / 'run')
    assert rows_of(tmp_path / 'run') == rows_of(tmp_path / 'whole')
    states = [read_state(config, tmp_path / name, 18)[0] for name in ('run', 'whole')]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_checkpoint_of_an_earlier_version_may_lie_within_a_call(config, tmp_path):
    # It is like one of a run with single steps.
    config.checkpoint.every = '1 step'
    loop.train_and_evaluate(config, tmp_path / 'whole')
    shutil.copytree(tmp_path / 'whole', tmp_path / 'earlier')
    config.train.steps_per_call = 1
    loop.train_and_evaluate(config, tmp_path / 'single')
    shutil.rmtree(tmp_path / 'earlier/checkpoints')
    (tmp_path / 'earlier/checkpoints').mkdir()
    for name in ('5', '5.crc32'):
        (tmp_path / f'single/checkpoints/{name}').rename(tmp_path / f'earlier/checkpoints/{name}')
    summary = tmp_path / 'earlier/summary.json'
    summary.write_text(json.dumps({'status': 'preempted', 'step': 5}))
    config.train.steps_per_call = 4
    loop.train_and_evaluate(config, tmp_path / 'earlier')
    assert reader.checkpoint_steps(tmp_path / 'earlier') == [5, 6, 7, 8, 9, 10, 14, 18]
    rows, expected = rows_of(tmp_path / 'earlier'), rows_of(tmp_path / 'whole')
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
