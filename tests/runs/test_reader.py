"""Which checkpoint is the best."""

import pytest

from neptune_jax.runs import reader, writer


@pytest.mark.parametrize(
    ('accuracies', 'best'),
    [({}, None), ({5: 0.1}, 5), ({5: 0.7, 10: 0.9, 15: 0.8}, 10), ({5: 0.9, 10: 0.9, 15: 0.1}, 10)],
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
