import hashlib
import json

import numpy as np
import pytest

from neptune_jax.data import batches, dataset
from neptune_jax.errors import UserError


def test_the_small_data_set_is_real_stratified_and_split(config):
    data = dataset.load(config.data)
    assert data.sizes == {'train': 2250, 'val': 250, 'test': 500}
    assert data.images.shape == (3000, 28, 28, 1)
    assert data.class_names[8] == 'Bag'
    for split, count in (('train', 225), ('val', 25), ('test', 50)):
        np.testing.assert_array_equal(np.bincount(data.labels[data.splits[split]]), [count] * 10)
    everything = np.concatenate(list(data.splits.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(3000))
    # Real images: the published mean and deviation of Fashion-MNIST are 0.2860 and 0.3530.
    np.testing.assert_allclose(data.standardizer.shift, [0.286], atol=0.005)
    np.testing.assert_allclose(data.standardizer.scale, [0.353], atol=0.005)


def test_no_image_is_in_two_splits(config):
    data = dataset.load(config.data)
    digests = {
        split: {hashlib.sha256(data.images[i]).digest() for i in examples}
        for split, examples in data.splits.items()
    }
    assert not digests['train'] & digests['val']
    assert not digests['train'] & digests['test']
    assert not digests['val'] & digests['test']


def test_statistics_come_from_the_training_split_alone(config):
    data = dataset.load(config.data)
    pixels = data.images[data.splits['train']] / 255
    np.testing.assert_allclose(data.standardizer.shift, pixels.mean(), rtol=1e-6)
    np.testing.assert_allclose(data.standardizer.scale, pixels.std(), rtol=1e-6)


def test_the_description_tells_data_apart(config):
    first = dataset.load(config.data).describe()
    assert dataset.load(config.data).describe()['sha256'] == first['sha256']
    config.data.split_seed = 1
    other = dataset.load(config.data).describe()
    assert other['sizes'] == first['sizes']
    assert other['sha256']['val'] != first['sha256']['val']
    assert other['sha256']['test'] == first['sha256']['test']


@pytest.mark.parametrize(
    ('fields', 'expected'),
    [
        ({}, '3f936abbaed15043 cd261e97d8f5c8cb 658af59f9b9d4495'),
        ({'split_seed': 7}, '462dad4864712cb8 bd4e9bd44d591910 658af59f9b9d4495'),
        (
            {'split_seed': 7, 'folds': 3, 'fold': 1, 'subset': 20},
            '0421979e3ba64b48 882a3c206b1982fb 658af59f9b9d4495',
        ),
    ],
)
def test_standard_data_sets_have_the_splits_of_version_0_1(config, fields, expected):
    """sha256 of the numbers of the examples, computed with that version: results depend on them."""
    config.data.update(fields)
    parts = dataset.load(config.data).splits
    found = [hashlib.sha256(parts[split].astype('<i8')).hexdigest()[:16] for split in parts]
    assert list(parts) == ['train', 'val', 'test']
    assert found == expected.split()


def drawn(raw, seed, test=0.1, val=0.1):
    """The split of an image, from its raw content alone."""
    content = hashlib.blake2b(raw, digest_size=16).digest() + str(seed).encode()
    u = int(hashlib.blake2b(content, digest_size=8).hexdigest(), 16) / 2**64
    return 'test' if u < test else 'val' if u < test + (1 - test) * val else 'train'


@pytest.fixture
def files(tmp_path, write, config):
    """A folder of two classes of 60 images each, in files of two formats."""
    rng = np.random.default_rng(0)
    write(
        {
            f'{i % 2}/{i}.{"png" if i % 3 else "bmp"}': rng.integers(0, 256, (6, 5), np.uint8)
            for i in range(120)
        }
    )
    config.data.update(name='image_folder', path=str(tmp_path / 'raw'), dir=str(tmp_path / 'data'))
    config.data.resize = 'stretch'

    def splits(**fields):
        config.data.update(fields)
        data = dataset.load(config.data)
        return {data.source.name(i): split for split, part in data.splits.items() for i in part}

    return splits


def test_the_bytes_of_a_file_decide_on_its_split(files, tmp_path):
    for seed in (0, 3):
        expected = {
            str(path.relative_to(tmp_path / 'raw')): drawn(path.read_bytes(), seed)
            for path in tmp_path.glob('raw/*/*')
        }
        assert {*expected.values()} == {'train', 'val', 'test'}
        assert files(split_seed=seed) == expected
    # At another size a fine-tuned network is tested on what it has not seen.
    assert files(image_size=(4, 4), channels=3, resize='crop') == expected


def test_adding_and_removing_files_moves_no_others(files, write, tmp_path):
    before = files()
    rng = np.random.default_rng(1)
    write({f'{i % 2}/a{i}.png': rng.integers(0, 256, (6, 5), np.uint8) for i in range(60)})
    for path in list(tmp_path.glob('raw/*/*'))[::5]:
        path.unlink()
    after = files()
    assert after.keys() - before.keys()
    assert before.keys() - after.keys()
    common = before.keys() & after.keys()
    assert {name: after[name] for name in common} == {name: before[name] for name in common}


def save_arrays(path, **sizes):
    """Writes an .npz of the given splits with three classes; returns the images by their split."""
    rng = np.random.default_rng(0)
    images = {split: rng.random((size, 4, 4), np.float32) for split, size in sizes.items()}
    arrays = {f'x_{split}': part for split, part in images.items()}
    labels = {f'y_{split}': np.arange(size) % 3 for split, size in sizes.items()}
    np.savez(path, **arrays, **labels)
    return images


@pytest.mark.parametrize('official', [(), ('val',), ('test',), ('val', 'test')])
def test_official_splits_are_respected_and_others_drawn(config, tmp_path, official):
    sizes = {'train': 90, 'val': 30, 'test': 30}
    images = save_arrays(
        tmp_path / 'raw.npz', **{split: sizes[split] for split in ('train', *official)}
    )
    config.data.update(name='arrays', path=str(tmp_path / 'raw.npz'), dir=str(tmp_path))
    config.data.update(test_fraction=0.2, val_fraction=0.25)
    data = dataset.load(config.data)
    names = {split: [data.source.name(i) for i in part] for split, part in data.splits.items()}
    fractions = {'test': 0.2, 'val': 0.25} | dict.fromkeys(official, 0.0)
    expected = {split: [f'{split}[{i}]' for i in range(30)] for split in official}
    for i, image in enumerate(images['train']):
        split = drawn(b'<f4(4, 4)' + image.tobytes(), 0, **fractions)
        expected.setdefault(split, []).append(f'train[{i}]')
    assert names == expected


def test_folds_are_dealt_from_training_and_official_validation_images(config, tmp_path):
    save_arrays(tmp_path / 'raw.npz', train=40, val=20, test=9)
    config.data.update(name='arrays', path=str(tmp_path / 'raw.npz'), dir=str(tmp_path), folds=4)
    parts = []
    for fold in range(4):
        config.data.fold = fold
        data = dataset.load(config.data)
        assert data.sizes == {'train': 45, 'val': 15, 'test': 9}
        assert sorted([*data.splits['train'], *data.splits['val']]) == list(range(60))
        parts += data.splits['val'].tolist()
    assert sorted(parts) == list(range(60))


def test_a_class_that_a_split_lacks_is_named(config, tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 5, 2])
    np.savez(tmp_path / 'raw.npz', images=rng.random((67, 4, 4)), labels=labels)
    config.data.update(name='arrays', path=str(tmp_path / 'raw.npz'), dir=str(tmp_path))
    config.data.split_seed = 0
    data = dataset.load(config.data)
    counts = data.report['splits']
    assert counts == {
        split: {str(label): int((data.labels[part] == label).sum()) for label in range(3)}
        for split, part in data.splits.items()
    }
    assert min(counts['val']['1'], counts['test']['1']) == 1  # of five, three or fewer train
    assert counts['train']['2'] == 2  # of two, none is drawn with this seed
    notes = [
        f'the {split} split has no images of 1 of the 3 classes, of which the {doing} says '
        "nothing: '2' (2 in all)"
        for split, doing in (('val', 'validation'), ('test', 'test'))
    ]
    assert data.report['notes'] == notes
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if 'split has no images' in line] == [
        f'note     {note}' for note in notes
    ]


def test_a_fold_that_takes_the_last_image_of_the_second_class_is_refused(config, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (22, 4, 4), np.uint8)
    np.savez(tmp_path / 'raw.npz', images=images, labels=np.repeat([0, 1], [20, 2]))
    config.data.update(name='arrays', path=str(tmp_path / 'raw.npz'), dir=str(tmp_path), folds=2)
    trained = []
    for config.data.fold in (0, 1):  # one of the two images is in the test split
        try:
            trained.append(dataset.load(config.data).report['splits']['train']['1'])
        except UserError as error:
            assert 'has images of fewer than two classes' in str(error)
    assert trained == [1]


@pytest.mark.parametrize('empty', [('test',), ('val',), ('test', 'val')])
def test_splits_may_be_empty(config, empty, tmp_path):
    arrays = {'images': np.arange(30 * 16).reshape(30, 4, 4) % 251, 'labels': np.arange(30) % 3}
    np.savez(tmp_path / 'raw.npz', **arrays)
    config.data.update({'name': 'arrays', 'path': str(tmp_path / 'raw.npz')})
    config.data.update({f'{split}_fraction': 0.0 for split in empty})
    data = dataset.load(config.data)
    sizes = {'train': 24, 'val': 3, 'test': 3}
    for split in empty:
        sizes['train'] += sizes[split]
        sizes[split] = 0
        assert data.read_images(data.splits[split]).shape == (0, 4, 4, 1)
        assert len(batches.EvalOrder(data.splits[split], 5)) == 0
        assert data.fingerprint[split] == hashlib.sha256().hexdigest()
    assert data.sizes == sizes
    assert data.report['after'] == {'train': 30}
    assert json.loads(json.dumps(data.describe())) == data.describe()


@pytest.fixture
def use_arrays(config, tmp_path):
    """Writes arrays of images without copies, [n, 6, 6], and makes the config read them."""

    def use_arrays(sizes, **fields):
        rng = np.random.default_rng(0)
        arrays = {}
        for split, size in sizes.items():
            images = rng.integers(0, 256, (size, 6, 6)).astype(np.uint8)
            names = (f'x_{split}', f'y_{split}') if split else ('images', 'labels')
            arrays |= dict(zip(names, (images, np.arange(size) % 2), strict=True))
        np.savez(tmp_path / 'raw.npz', **arrays)
        config.data.update({'name': 'arrays', 'path': str(tmp_path / 'raw.npz')} | fields)

    return use_arrays


def test_each_fraction_is_that_of_its_split(config, use_arrays):
    use_arrays({'': 400}, test_fraction=0.4, val_fraction=0.1)
    sizes = dataset.load(config.data).sizes
    assert sum(sizes.values()) == 400
    assert sizes['test'] == pytest.approx(160, abs=40)
    assert sizes['val'] == pytest.approx(24, abs=20)


@pytest.mark.parametrize(
    ('fields', 'split', 'count'),
    [
        ({'folds': 5}, 'val', 50),
        ({'val_fraction': 0.3}, 'val', 75),
        ({'subset': 9}, 'train', 9),
    ],
    ids=['folds', 'fraction', 'subset'],
)
def test_the_seed_of_the_splits_decides_on(config, fields, split, count):
    config.data.update(fields)
    found = []
    for config.data.split_seed in (0, 1):
        data = dataset.load(config.data)
        found.append(data.splits[split])
        np.testing.assert_array_equal(np.bincount(data.labels[found[-1]]), [count] * 10)
    assert np.isin(*found).mean() < 0.5


@pytest.mark.parametrize('fields', [{'folds': 4, 'fold': 3}, {'subset': 7}])
def test_statistics_are_those_of_what_is_trained_on(config, fields):
    config.data.update(fields)
    data = dataset.load(config.data)
    pixels = data.images[data.splits['train']] / 255
    np.testing.assert_allclose(data.standardizer.shift, pixels.mean(), rtol=1e-6)
    np.testing.assert_allclose(data.standardizer.scale, pixels.std(), rtol=1e-6)


def test_other_labels_or_pixels_of_a_split_change_its_sha256_alone(config, tmp_path):
    def fingerprint(change=lambda arrays: None):
        rng = np.random.default_rng(0)
        arrays = {}
        for split in ('train', 'val', 'test'):
            arrays[f'x_{split}'] = rng.integers(0, 256, (12, 6, 6)).astype(np.uint8)
            arrays[f'y_{split}'] = np.arange(12) % 2
        change(arrays)
        np.savez(tmp_path / 'raw.npz', **arrays)
        config.data.update({'name': 'arrays', 'path': str(tmp_path / 'raw.npz')})
        return dataset.load(config.data).describe()['sha256']

    first = fingerprint()
    assert fingerprint() == first
    for name, place in (('y_val', 3), ('x_val', (3, 0, 0)), ('y_train', 0), ('x_test', (11, 5, 5))):

        def change(arrays, name=name, place=place):
            arrays[name][place] ^= 1

        found = fingerprint(change)
        assert [split for split in first if found[split] != first[split]] == [name[2:]]


def test_statistics_count_copies_once(config, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6)).astype(np.uint8)
    images[20:] = 255  # one white image and 19 copies of it
    labels = np.append(np.arange(20) % 2, np.zeros(20, int))
    arrays = {'x_train': images, 'y_train': labels}
    for split in ('val', 'test'):
        others = np.random.default_rng(len(split)).integers(0, 256, (8, 6, 6)).astype(np.uint8)
        arrays |= {f'x_{split}': others, f'y_{split}': np.arange(8) % 2}
    np.savez(tmp_path / 'raw.npz', **arrays)
    config.data.update({'name': 'arrays', 'path': str(tmp_path / 'raw.npz')})
    data = dataset.load(config.data)
    assert data.sizes['train'] == 21
    np.testing.assert_allclose(data.standardizer.shift, images[:21].mean() / 255, rtol=1e-6)


def test_a_fold_without_folds_is_refused(config):
    config.data.fold = 2
    with pytest.raises(UserError, match=r'^data.fold=2 is not used without data.folds'):
        dataset.load(config.data)
    config.data.folds = 3
    assert dataset.load(config.data).sizes['val'] == 833


def test_unknown_data_sets_are_refused(config):
    config.data.name = 'mnits'
    with pytest.raises(UserError, match=r"data.name='mnits' is unknown; choose one of: mnist"):
        dataset.load(config.data)


@pytest.mark.parametrize(
    ('other', 'fields', 'expected'),
    [
        ({}, {}, ''),
        ({'mode': 'host', 'resize': 'crop'}, {}, ''),
        ({'split_seed': 4}, {}, 'data.split_seed: 4 there, 0 here'),  # draws the validation split
        ({'split_seed': 4, 'path': 'elsewhere'}, {}, ''),
        ({'split_seed': 4, 'name': 'mnist'}, {}, ''),
        ({'split_seed': 4}, {'val_fraction': 0.0}, ''),  # the test split is official
        ({'folds': 3}, {'folds': 3, 'fold': 1}, 'data.fold: 0 there, 1 here'),
    ],
)
def test_another_run_may_have_trained_on_what_is_held_out_here(config, other, fields, expected):
    there = json.loads(config.data.to_json()) | other
    config.data.update(fields)
    assert dataset.drawn_otherwise(dataset.load(config.data), config.data, there) == expected


def test_a_run_of_another_version_may_lack_fields(config):
    data = dataset.load(config.data)
    there = {'name': 'fashion_mnist_mini', 'path': '', 'labels_path': '', 'label_column': 'label'}
    assert dataset.drawn_otherwise(data, config.data, there) == ''
    assert dataset.drawn_otherwise(data, config.data, {}) == ''
