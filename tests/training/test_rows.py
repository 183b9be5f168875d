"""The speed that is shown, and the time that counts as training."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax.errors import UserError
from neptune_jax.runs import reader, writer
from neptune_jax.training import records


class Watch:
    """A clock that a test sets."""

    seconds = 0.0


class Shown(list):
    """Takes the place of the progress bar; keeps (step, steps per second)."""

    def logged(self, step, values, steps_per_second):
        self.append((step, steps_per_second))


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def make_rows(tmp_path, watch, shown):
    run = writer.Run(tmp_path)

    def make_rows(step=0, unwritten=(), every=None):
        return records.Rows(run, shown, watch, step, list(unwritten), every)

    yield make_rows
    run.close()


def values(loss=1.0):
    return {'loss': np.float32(loss), 'learning_rate': np.float32(0.1)}


def end_interval_at(rows, watch, seconds):
    """Ends a log interval whose last step is computed at a time."""
    watch.seconds = seconds
    rows.end_interval()
    rows._computed.result()


def test_the_speed_of_a_row_is_that_of_its_own_steps(make_rows, watch, shown):
    rows = make_rows()
    for last_step, seconds in ((2, 4.0), (4, 5.0), (6, 10.0)):
        rows.add(last_step - 1, values())
        rows.add(last_step, values())
        end_interval_at(rows, watch, seconds)
    watch.seconds = 60.0  # the last row is written much later
    rows.write()
    assert shown == [(2, 2 / 4), (4, 2 / 1), (6, 2 / 5)]


def test_steps_of_an_earlier_part_of_the_run_are_in_the_means_not_in_the_speed(
    make_rows, watch, shown, tmp_path
):
    # An earlier version saved no learning rates.
    rows = make_rows(step=3, unwritten=[(3, {'loss': 4.0})])
    rows.add(4, values(loss=2.0))
    end_interval_at(rows, watch, 2.0)
    rows.write()
    assert shown == [(4, 1 / 2)]
    (row,) = reader.read_rows(tmp_path)
    assert row['train/loss'] == 3.0
    assert row['train/learning_rate'] == pytest.approx(0.1)


def test_a_row_holds_the_means_over_its_steps_and_the_last_rate(make_rows, watch, tmp_path):
    rows = make_rows()
    for step, (loss, rate) in enumerate([(1.0, 0.3), (2.0, 0.2), (6.0, 0.1)], 1):
        rows.add(step, {'loss': np.float32(loss), 'learning_rate': np.float32(rate)})
    end_interval_at(rows, watch, 1.0)
    rows.write()
    (row,) = reader.read_rows(tmp_path)
    assert (row['step'], row['train/loss']) == (3, 3.0)
    assert row['train/learning_rate'] == pytest.approx(0.1)


def test_the_seconds_of_a_resumed_run_include_those_before(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(records.time, 'perf_counter', lambda: now)
    run = writer.Run(tmp_path)
    run.update_summary(train_seconds=7.5)
    config = ConfigDict({'train': {'batch_size': 64}})
    experiment = types.SimpleNamespace(config=config, steps_per_epoch=4)
    clock = records.Clock(run, experiment, step=2)
    now = 101.0
    with clock.paused():
        now = 150.0
    now = 152.0
    clock.report(6)
    # 3 seconds of training for 4 steps; 7.5 seconds of the earlier part.
    found = reader.read_summary(tmp_path)
    assert found['train_seconds'] == 10.5
    assert found['images_per_second'] == pytest.approx(4 * 64 / 3, abs=0.05)
    assert (found['step'], found['epochs']) == (6, 1.5)


def test_rows_that_end_within_a_call_have_its_speed_and_their_own_steps(
    make_rows, watch, shown, tmp_path
):
    rows = make_rows(step=1, unwritten=[(1, {'loss': 8.0})], every=2)
    for last_step, seconds in ((5, 2.0), (9, 4.0)):
        watch.seconds = seconds
        losses = np.arange(last_step - 3, last_step + 1, dtype=np.float32)
        rows.add(last_step, {'loss': losses, 'learning_rate': losses / 8})
        rows._computed.result()
    assert rows.unwritten() == [(9, {'loss': 9.0, 'learning_rate': 9 / 8})]
    rows.end_interval()  # as before a validation
    rows.end_interval()  # there is no step any more
    rows.write()
    assert rows.unwritten() == []
    found = [(row['step'], row['train/loss']) for row in reader.read_rows(tmp_path)]
    assert found == [(2, 5.0), (4, 3.5), (6, 5.5), (8, 7.5), (9, 9.0)]
    assert [row['train/learning_rate'] for row in reader.read_rows(tmp_path)][:2] == [2 / 8, 4 / 8]
    assert shown == [(2, 4 / 2), (4, 4 / 2), (6, 4 / 2), (8, 4 / 2), (9, 4 / 2)]


def test_the_first_loss_that_is_not_finite_is_named_and_its_row_is_the_last(make_rows, tmp_path):
    rows = make_rows(every=2)
    losses = np.array([1, 1, 1, np.inf, np.nan, 1], np.float32)
    rows.add(6, {'loss': losses, 'learning_rate': losses})
    with pytest.raises(UserError, match='the loss is inf at step 4; try a lower'):
        rows.check()
    assert [row['step'] for row in reader.read_rows(tmp_path)] == [2, 4]
