"""Which checkpoint is the best."""

import math

import pytest

from neptune_jax.errors import UserError
from neptune_jax.runs import reader, weights, writer


@pytest.mark.parametrize(
    ('accuracies', 'best'),
    [
        ({}, None),
        ({5: 0.1}, 5),
        ({5: 0.7, 10: 0.9, 15: 0.8}, 10),
        ({5: 0.9, 10: 0.9, 15: 0.1}, 10),
        ({5: math.nan, 10: 0.1, 15: math.nan}, 10),
        ({5: math.nan}, None),
    ],
)
def test_the_best_is_the_most_accurate_and_the_last_of_equal_ones(accuracies, best):
    assert reader.best(accuracies) == best


def test_the_best_step_of_a_run_is_one_whose_checkpoint_is_still_there(tmp_path):
    run = writer.Run(tmp_path)
    for step, accuracy in ((5, 0.9), (10, 0.7), (15, 0.8)):
        run.write(step, {'train/loss': 1.0})
        run.write(step, {'val/accuracy': accuracy, 'val/loss': 0.5})
    run.close()
    assert reader.best_step(tmp_path) is None
    for step in (10, 15, 20):
        (tmp_path / f'checkpoints/{step}').mkdir(parents=True)
    (tmp_path / 'checkpoints/20.crc32').touch()
    assert reader.checkpoint_steps(tmp_path) == [10, 15, 20]
    assert reader.best_step(tmp_path) == 15
    assert reader.split_metrics(tmp_path, 15, 'val') == {'accuracy': 0.8, 'loss': 0.5}


@pytest.mark.parametrize('loss', [math.nan, math.inf, -math.inf])
def test_a_step_whose_validation_loss_is_not_finite_is_never_the_best(tmp_path, loss):
    run = writer.Run(tmp_path)
    run.write(5, {'val/accuracy': 0.1, 'val/loss': 2.0})
    run.write(10, {'val/accuracy': 0.9, 'val/loss': loss})
    run.close()
    for step in (10, 15):
        (tmp_path / f'checkpoints/{step}').mkdir(parents=True)
    assert reader.best_step(tmp_path) == 15  # it may be good; step 10 is not
    (tmp_path / 'checkpoints/5').mkdir()
    assert reader.best_step(tmp_path) == 5
    for step in (5, 15):
        (tmp_path / f'checkpoints/{step}').rmdir()
    assert reader.best_step(tmp_path) is None
    with pytest.raises(UserError, match='holds no run with a checkpoint whose loss is finite'):
        weights.read_weights(tmp_path)


def test_without_validation_the_best_step_is_the_last_one(tmp_path):
    for step in (9, 10):
        (tmp_path / f'checkpoints/{step}').mkdir(parents=True)
    assert reader.best_step(tmp_path) == 10


def test_rows_that_replace_the_file_are_all_new(tmp_path):
    run = writer.Run(tmp_path)
    rows = reader.follow_rows(tmp_path)
    assert next(rows) == []
    for step in (1, 2, 3):
        run.write(step, {'train/loss': 1.0})
    assert [row['step'] for row in next(rows)] == [1, 2, 3]
    assert next(rows) == []
    run.rewind(1)
    for step in (2, 3, 4):  # the new file is longer than what was read of the old one
        run.write(step, {'train/loss': 2.0})
    assert [row['step'] for row in next(rows)] == [1, 2, 3, 4]
    run.close()
