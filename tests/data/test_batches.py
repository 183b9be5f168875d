import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_jax.data import batches

EXAMPLES = np.arange(100, 150)  # indices need not start at 0


def order(batch_size=8, seed=0, **kwargs):
    return batches.TrainOrder(EXAMPLES, batch_size, seed, **kwargs)


@given(steps=st.lists(st.integers(0, 60), max_size=8), batch_size=st.sampled_from([1, 7, 8, 50]))
def test_a_batch_is_a_function_of_its_step_alone(steps, batch_size):
    one_by_one = order(batch_size)
    everything = [one_by_one[step] for step in range(61)]
    entered = order(batch_size)
    for step in steps:
        np.testing.assert_array_equal(entered[step], everything[step])


def test_an_epoch_holds_each_example_at_most_once_and_its_order_is_its_own():
    # Six batches of eight out of fifty examples.
    epochs = np.reshape([order()[step] for step in range(18)], (3, 48))
    for epoch in epochs:
        assert len(np.unique(epoch)) == 48
        assert np.isin(epoch, EXAMPLES).all()
    assert (epochs[0] != epochs[1]).any()
    assert (order(seed=1)[0] != order()[0]).any()


@pytest.mark.parametrize('balance_by', [None, np.arange(50) % 2])
def test_no_epoch_of_a_seed_is_that_of_another_seed(balance_by):
    epochs = [
        np.concatenate([order(seed=seed, balance_by=balance_by)[6 * epoch + i] for i in range(6)])
        for seed in range(4)
        for epoch in range(4)
    ]
    assert len(np.unique(epochs, axis=0)) == 16


def test_a_balanced_order_draws_each_class_equally_often():
    labels = np.repeat([0, 1, 2], [40, 8, 2])
    drawn = order(50, balance_by=labels)
    counts = sum(np.bincount(labels[drawn[step] - 100], minlength=3) for step in range(200))
    # 10,000 draws, a third each: five standard deviations are 236.
    np.testing.assert_allclose(counts, 10_000 / 3, atol=236)
    np.testing.assert_array_equal(order(50, balance_by=labels)[7], drawn[7])


@given(count=st.integers(1, 50), batch_size=st.integers(1, 20))
def test_evaluation_holds_each_example_once_whatever_the_batch_size(count, batch_size):
    evaluation = batches.EvalOrder(EXAMPLES[:count], batch_size)
    found = [evaluation[number] for number in range(len(evaluation))]
    assert {len(batch) for batch in found} == {batch_size}
    flat = np.concatenate(found)
    np.testing.assert_array_equal(flat[flat >= 0], EXAMPLES[:count])
    assert len(flat) - count < batch_size


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_the_shares_of_processes_are_the_batch_in_its_order(processes):
    batch = order(16)[3]
    shares = [batches.share(batch, process, processes) for process in range(processes)]
    np.testing.assert_array_equal(np.concatenate(shares), batch)
    assert {len(share) for share in shares} == {16 // processes}


def calls_one_by_one(start, stop, steps_per_call, every):
    """The (first step, steps) of each call after `start` steps, found by walking from step 0."""
    calls, step = [], 0
    while step < stop:
        end = min(stop, step - step % every + every)
        is_long = (step % every) % steps_per_call == 0 and step + steps_per_call <= end
        calls.append((step, steps_per_call if is_long else 1))
        step += calls[-1][1]
    unfinished = [call for call in calls if call[0] < start < sum(call)]
    rest = [(step, 1) for first, count in unfinished for step in range(start, first + count)]
    return rest + [call for call in calls if call[0] >= start]


@given(
    start=st.integers(0, 60),
    stop=st.integers(1, 60),
    steps_per_call=st.integers(1, 9),
    every=st.integers(1, 70),
)
def test_calls_hold_every_step_once_and_are_those_of_the_whole_run(
    start, stop, steps_per_call, every
):
    start = min(start, stop)
    groups = batches.StepGroups(order(), start, stop, steps_per_call, every)
    expected = calls_one_by_one(start, stop, steps_per_call, every)
    assert len(groups) == len(expected)
    assert groups.counts() == {count for _, count in expected}
    for number, (first, count) in enumerate(expected):
        assert groups.count(first) == count
        found = groups[number].reshape(8, count)
        for i in range(count):
            np.testing.assert_array_equal(found[:, i], order()[first + i])


def counts(groups):
    return [groups[i].size // 8 for i in range(len(groups))]


def test_as_many_steps_a_call_as_fit():
    groups = batches.StepGroups(order(), 0, 23, 4, 10)
    assert counts(groups) == [4, 4, 1, 1, 4, 4, 1, 1, 1, 1, 1]
    # Where a run is resumed, its calls are those that it would have made.
    assert counts(batches.StepGroups(order(), 8, 23, 4, 10)) == [1, 1, 4, 4, 1, 1, 1, 1, 1]
    # An earlier version could save a checkpoint within a call.
    assert counts(batches.StepGroups(order(), 5, 23, 4, 10)) == [1, 1, 1, 1, 1, 4, 4, 1, 1, 1, 1, 1]


def test_a_training_without_end_takes_no_memory_before_it_begins():
    tracemalloc.start()
    groups = batches.StepGroups(order(), 7, 2**31 - 1, 4, 1_000_001)
    # 2147 times a million steps and one, of which the last is taken alone, and 481,500 more. One
    # step stands for the first two calls, because the start lies in the second.
    assert len(groups) == 2147 * 250_001 + 481_500 // 4 - 1
    assert groups.counts() == {1, 4}
    np.testing.assert_array_equal(groups[len(groups) - 1][:, 3], order()[2**31 - 2])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
