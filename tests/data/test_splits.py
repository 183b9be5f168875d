import hashlib
import re

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


def hashes(texts):
    """bytes16[n], as if the texts were files."""
    digests = [hashlib.blake2b(str(text).encode(), digest_size=16).digest() for text in texts]
    return np.frombuffer(b''.join(digests), 'V16')


def number(content, seed):
    """In [0, 1): an exact fraction of 64 bits as Python's integers give it, without its last 11."""
    digest = hashlib.blake2b(bytes(content) + b'%d' % seed, digest_size=8).digest()
    return (int.from_bytes(digest, 'big') >> 11) / 2**53


@pytest.mark.parametrize(('test', 'val', 'seed'), [(0.1, 0.1, 0), (0.3, 0.2, 5), (0, 0.4, 0)])
def test_the_content_of_an_image_and_the_seed_decide_on_its_split(test, val, seed):
    contents, labels = hashes(range(900)), np.arange(900) % 3
    examples = np.arange(0, 900, 2)  # the others are in official splits
    found = splits.by_content(examples, labels, contents, test, val, seed)
    expected = ([], [], [])
    for i in examples:
        u = number(contents[i], seed)
        expected[2 if u < test else 1 if u < test + (1 - test) * val else 0].append(i)
    assert [part.tolist() for part in found] == list(expected)
    shares = ((1 - test) * (1 - val), (1 - test) * val, test)
    for size, share in zip(map(len, found), shares, strict=True):
        assert abs(size - 450 * share) <= 4 * np.sqrt(450 * share * (1 - share))  # binomial


def test_images_that_are_added_or_removed_move_no_others():
    contents, labels = hashes(range(600)), np.arange(600) % 3

    def drawn(examples):
        return splits.by_content(examples, labels, contents, 0.1, 0.1, 0)

    everything = drawn(np.arange(600))
    rng = np.random.default_rng(0)
    for _ in range(5):
        some = np.sort(rng.choice(600, 300, replace=False))
        for part, whole in zip(drawn(some), everything, strict=True):
            np.testing.assert_array_equal(part, np.intersect1d(some, whole))


@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    fractions=st.sampled_from([(0.1, 0.1), (0.6, 0.9), (0.0, 0.2), (0.01, 0.0)]),
    seed=st.integers(0, 1000),
)
def test_each_class_with_enough_images_is_in_each_split(counts, fractions, seed):
    labels, contents = np.repeat(np.arange(len(counts)), counts), hashes(range(sum(counts)))
    wanted = sum(map(bool, fractions))
    if max(counts) <= wanted:
        return
    train, val, test = splits.by_content(np.arange(len(labels)), labels, contents, *fractions, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val, test])), range(len(labels)))
    for label, count in enumerate(counts):
        ordered = sorted(np.flatnonzero(labels == label), key=lambda i: number(contents[i], seed))
        sizes = [int(np.isin(ordered, part).sum()) for part in (test, val, train)]
        assert sizes[2] >= 1
        if count > wanted:
            assert sizes[0] >= (fractions[0] > 0)
            assert sizes[1] >= (fractions[1] > 0)
        else:
            limit = fractions[0] + (1 - fractions[0]) * fractions[1]
            drawn = sum(number(contents[i], seed) < limit for i in ordered)
            assert sizes[0] + sizes[1] == min(drawn, count - 1)
        # Those with the lowest numbers test, then come those that validate.
        assert set(ordered[: sizes[0]]) <= set(test)
        assert set(ordered[sizes[0] : sizes[0] + sizes[1]]) <= set(val)


def test_a_class_gives_no_more_than_it_must():
    """Of five images none is drawn: the lowest number tests, the next one validates."""
    labels = np.repeat([0, 1], [190, 5])
    for start in range(0, 10_000, 195):
        contents = hashes(range(start, start + 195))
        numbers = [number(content, 0) for content in contents[190:]]
        if min(numbers) > 0.19:
            break
    train, val, test = splits.by_content(np.arange(195), labels, contents, 0.1, 0.1, 0)
    first, second, *others = 190 + np.argsort(numbers)
    assert test[test >= 190].tolist() == [first]
    assert val[val >= 190].tolist() == [second]
    assert train[train >= 190].tolist() == sorted(others)


def test_equal_contents_are_in_one_split_also_in_small_classes():
    rng = np.random.default_rng(0)
    for seed in range(50):
        texts = rng.integers(0, 20, 60)
        labels = np.where(rng.random(60) < 0.1, rng.integers(0, 4, 60), texts % 4)
        parts = splits.by_content(np.arange(60), labels, hashes(texts), 0.1, 0.1, seed)
        found = [set(texts[part]) for part in parts]
        assert not found[0] & found[1]
        assert not found[0] & found[2]
        assert not found[1] & found[2]


def test_classes_of_two_images_are_not_enough_for_three_splits():
    labels, contents = np.repeat([0, 1], 2), hashes([0, 1, 2, 3])
    message = (
        'data.test_fraction=1e-09 of 4 training images holds none out, and no class has 3 different'
        ' images of its own, one for each split; add images, or set --config.data.test_fraction=0'
    )
    with pytest.raises(UserError, match=message):
        splits.by_content(np.arange(4), labels, contents, 1e-9, 1e-9, 0)
    parts = splits.by_content(np.arange(4), labels, contents, 0.0, 1e-9, 0)
    assert [labels[part].tolist() for part in parts] == [[0, 1], [0, 1], []]


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
    for number in (0, 9):
        with pytest.raises(UserError, match=r'data.folds=10 are more than the 9 training examples'):
            splits.fold(np.arange(9), np.zeros(9), number, 10, 0)


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


@pytest.mark.parametrize(
    ('count', 'fraction'),
    [(4, 0.1), (3, 0.1), (2, 0.9), (7, 0.99), (1, 0.1), (300, 0.001), (300, 0.999)],
)
def test_the_message_says_which_value_divides_small_classes(count, fraction):
    labels = np.repeat(np.arange(20), count)
    with pytest.raises(UserError, match=r'of .* training examples leaves') as caught:
        splits.stratified(np.arange(len(labels)), labels, fraction, 0, 'data.test_fraction')
    value = float(re.search(r'set --config\.data\.test_fraction=([\d.]+)', str(caught.value))[1])
    rest, held_out = splits.stratified(np.arange(len(labels)), labels, value, 0)
    assert len(rest) > 0
    assert (len(held_out) > 0) == (count > 1)
