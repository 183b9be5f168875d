import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neptune_jax.data import splits
from neptune_jax.errors import UserError


@given(
    counts=st.lists(st.integers(20, 60), min_size=1, max_size=5),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 100),
)
def test_each_class_gives_its_share_and_each_example_is_used_once(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    labels = np.concatenate([labels, [0, 1, 2]])  # examples of another official split
    examples = np.arange(sum(counts))
    rest, held_out = splits.stratified(examples, labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held_out])), examples)
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held_out) > 0).all()
    for label, count in enumerate(counts):
        assert (labels[held_out] == label).sum() == round(fraction * count)


def test_the_seed_alone_decides():
    labels = np.arange(1000) % 10
    examples = np.arange(1000)
    first = splits.stratified(examples, labels, 0.1, 0)
    np.testing.assert_array_equal(splits.stratified(examples, labels, 0.1, 0)[1], first[1])
    assert (splits.stratified(examples, labels, 0.1, 1)[1] != first[1]).any()


def test_no_validation_split():
    rest, held_out = splits.stratified(np.arange(10), np.zeros(10), 0.0, 0)
    assert (len(rest), len(held_out)) == (10, 0)


@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=5), folds=st.integers(2, 5))
def test_folds_are_disjoint_even_and_cover_everything(counts, folds):
    labels = np.repeat(np.arange(len(counts)), counts)
    examples = np.arange(len(labels))
    if len(examples) < folds:
        return
    parts = [splits.fold(examples, labels, i, folds, seed=0) for i in range(folds)]
    for rest, held_out in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([rest, held_out])), examples)
    np.testing.assert_array_equal(np.sort(np.concatenate([part[1] for part in parts])), examples)
    sizes = [len(held_out) for _, held_out in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(counts)):
        own = [(labels[held_out] == label).sum() for _, held_out in parts]
        assert max(own) - min(own) <= 1


def test_folds_that_make_no_sense_are_refused():
    for number, folds in ((0, 1), (3, 3), (-1, 3)):
        with pytest.raises(UserError, match=rf'data.fold={number} of data.folds={folds}'):
            splits.fold(np.arange(9), np.zeros(9), number, folds, 0)
    with pytest.raises(UserError, match=r'data.folds=10 are more than the 9 training examples'):
        splits.fold(np.arange(9), np.zeros(9), 9, 10, 0)


def test_a_subset_has_so_many_of_each_class():
    labels = np.repeat([0, 1, 2], [50, 30, 5])
    found = splits.subset(np.arange(85), labels, 10, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[found]), [10, 10, 5])
    assert (np.diff(found) > 0).all()
    # A larger subset holds the smaller one: learning curves add examples.
    assert np.isin(found, splits.subset(np.arange(85), labels, 20, seed=0)).all()
    with pytest.raises(UserError, match=r'data.subset=0 must be at least 1'):
        splits.subset(np.arange(85), labels, 0, seed=0)


@pytest.mark.parametrize('fraction', [-0.1, 1.0, 2.0, float('nan')])
def test_fractions_outside_their_range_are_refused(fraction):
    with pytest.raises(UserError, match=r'data.val_fraction=.* at least 0 and below 1'):
        splits.stratified(np.arange(10), np.zeros(10), fraction, 0)


@pytest.mark.parametrize('fraction', [0.01, 0.99])
def test_an_empty_side_is_refused(fraction):
    with pytest.raises(UserError, match='neither may be empty'):
        splits.stratified(np.arange(10), np.zeros(10), fraction, 0)
