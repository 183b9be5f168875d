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
