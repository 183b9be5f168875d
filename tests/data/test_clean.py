"""Copies planted within and across splits, of which a report must tell exactly."""

import json

import numpy as np
import pytest

from configs import cnn
from neptune_jax.data import clean
from neptune_jax.data.sources import opening
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
PATTERNS = RNG.choice([40, 200], (40, 16, 17)).astype(np.uint8)  # as far apart as images can be
SIZES = {'train': 10, 'val': 4, 'test': 4}
LABELS = np.arange(18) % 2


@pytest.fixture
def find(tmp_path):
    """Cleans arrays of the three splits, one after another, after preparing them for real."""

    def find(images, labels=LABELS, sizes=SIZES, **options):
        arrays, start = {}, 0
        for split, size in sizes.items():
            arrays[f'x_{split}'] = images[start : start + size]
            arrays[f'y_{split}'] = labels[start : start + size]
            start += size
        np.savez(tmp_path / 'raw.npz', **arrays)
        config = cnn.get_config().data
        config.update(name='arrays', path=str(tmp_path / 'raw.npz'), dir=str(tmp_path / 'data'))
        config.clean.update(options)
        source = opening.open_source(config)
        splits, report = clean.clean(config.clean, source, source.index())
        assert json.loads(json.dumps(report)) == report
        assert report['before'] == sizes
        assert report['after'] == {split: len(part) for split, part in splits.items()}
        return {split: part.tolist() for split, part in splits.items()}, report

    return find


ALL = {'train': list(range(10)), 'val': list(range(10, 14)), 'test': list(range(14, 18))}


def test_nothing_to_clean(find):
    splits, report = find(PATTERNS[:18])
    assert splits == ALL
    assert report['rules'] == {}
    assert report['classes'] == {
        'train': {'0': 5, '1': 5},
        'val': {'0': 2, '1': 2},
        'test': {'0': 2, '1': 2},
    }
    assert clean.summary(report) == 'nothing to clean'


COPIES = {11: 15, 4: 11, 5: 1, 6: 0, 7: 1, 8: 14, 9: 13}  # of which example each is a copy


@pytest.fixture
def copies():
    """Images and labels; one image is in all three splits."""
    images, labels = PATTERNS[:18].copy(), LABELS.copy()
    for copy, original in COPIES.items():
        images[copy], labels[copy] = images[original], labels[original]
    return images, labels


def test_of_copies_that_of_the_test_is_kept_then_that_of_the_validation_then_the_first(
    find, copies
):
    splits, report = find(*copies)
    assert splits == {'train': [0, 1, 2, 3], 'val': [10, 12, 13], 'test': [14, 15, 16, 17]}
    assert report['rules']['exact_duplicates'] == {
        'count': 7,
        'examples': [
            'val[1] = test[1]',
            'train[4] = test[1]',
            'train[5] = train[1]',
            'train[6] = train[0]',
            'train[7] = train[1]',
            'train[8] = test[0]',
            'train[9] = val[3]',
        ],
    }
    assert 'conflicting_labels' not in report['rules']
    assert 'near_duplicates' not in report['rules']  # that they are exact is said already
    assert report['classes']['train'] == {'0': 2, '1': 2}
    assert clean.summary(report) == '7 exact duplicates'


def test_copies_may_be_kept_and_are_counted_all_the_same(find, copies):
    splits, report = find(*copies, duplicates='keep')
    assert splits == ALL
    assert report['rules']['exact_duplicates']['count'] == 7


def test_copies_that_are_kept_are_not_dropped_as_near_ones(find, copies):
    images, labels = copies
    images[3] = images[2] + 20
    splits, report = find(images, labels, duplicates='keep', near_duplicates='drop')
    assert splits == ALL | {'train': [0, 1, 2, 4, 5, 6, 7, 8, 9]}
    assert report['rules']['exact_duplicates']['count'] == 7
    assert report['rules']['near_duplicates']['count'] == 1


def test_copies_with_other_labels_are_counted_too(find, copies):
    images, labels = copies
    labels[[7, 8]] = 1 - labels[[7, 8]]
    splits, report = find(images, labels)
    assert splits['train'] == [0, 1, 2, 3]
    rules = report['rules']
    assert rules['exact_duplicates']['count'] == 7
    assert rules['conflicting_labels'] == {
        'count': 2,
        'examples': ['train[7] = train[1]', 'train[8] = test[0]'],
    }


def test_near_duplicates_are_counted_dropped_or_ignored(find):
    images = PATTERNS[:18].copy()
    images[3] = images[2] + 20
    images[9] = images[16] - 20
    near = {'count': 2, 'examples': ['train[3] = train[2]', 'train[9] = test[2]']}
    splits, report = find(images, near_duplicates='count')
    assert splits == ALL
    assert report['rules'] == {'near_duplicates': near}
    splits, report = find(images, near_duplicates='drop')
    assert splits == ALL | {'train': [0, 1, 2, 4, 5, 6, 7, 8]}
    assert report['rules'] == {'near_duplicates': near}
    splits, report = find(images, near_duplicates='ignore')
    assert splits == ALL
    assert report['rules'] == {}


def test_a_copy_of_a_near_duplicate(find):
    images = PATTERNS[:18].copy()
    images[3] = images[4] = images[2] + 20
    splits, report = find(images, near_duplicates='drop')
    assert splits['train'] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert report['rules']['exact_duplicates']['examples'] == ['train[4] = train[3]']
    assert report['rules']['near_duplicates']['examples'] == ['train[3] = train[2]']


@pytest.mark.parametrize('seed', range(3))
def test_against_a_loop_over_the_images(find, seed):
    rng = np.random.default_rng(seed)
    chosen = rng.choice(30, 45)
    labels = np.arange(45) % 3
    splits, report = find(PATTERNS[chosen], labels, {'train': 25, 'val': 10, 'test': 10})
    seen, expected = set(), {}
    for split, examples in {
        'test': range(35, 45),
        'val': range(25, 35),
        'train': range(25),
    }.items():
        expected[split] = [i for i in examples if not (chosen[i] in seen or seen.add(chosen[i]))]
    assert splits == expected
    assert report['rules']['exact_duplicates']['count'] == 45 - len(seen)
    assert len(report['rules']['exact_duplicates']['examples']) == 10


def test_what_the_preparation_did_is_in_the_report_too(find):
    images = PATTERNS[:18].astype(np.float64)
    images[2, 0, 0] = np.nan
    images[4] = -1
    splits, report = find(images)
    assert splits['train'] == list(range(9))  # numbered as they lie in the prepared data
    assert report['after'] == {'train': 9, 'val': 4, 'test': 4}
    rules = {name: rule['count'] for name, rule in report['rules'].items()}
    assert rules == {'from_float64': 17, 'missing_pixels': 1, 'unreadable': 1}
    assert clean.summary(report) == '17 from float64, 1 missing pixels, 1 unreadable'


def test_the_summary_tells_of_unequal_classes():
    classes = {'train': {'a': 6000, 'b': 1500, 'c': 0}}
    report = {'classes': classes, 'rules': {'exact_duplicates': {'count': 1234, 'examples': []}}}
    assert clean.summary(report) == (
        '1,234 exact duplicates, classes of 1,500 to 6,000 training images'
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'duplicates': 'count'}, "data.clean.duplicates='count' is unknown; .*: drop, keep"),
        ({'near_duplicates': 'keep'}, "data.clean.near_duplicates='keep' .*: count, drop, ignore"),
    ],
)
def test_unknown_options_are_refused(find, options, message):
    with pytest.raises(UserError, match=message):
        find(PATTERNS[:18], **options)


def test_a_split_that_cleaning_empties_is_refused(find):
    images = PATTERNS[:18].copy()
    images[10:14] = images[14:18]
    with pytest.raises(UserError, match=r"the split 'val' is empty after cleaning; .*data.clean"):
        find(images)
