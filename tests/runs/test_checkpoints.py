import re
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from neptune_jax.devices import drivers
from neptune_jax.errors import UserError
from neptune_jax.learning import state
from neptune_jax.models.cnn import CNN
from neptune_jax.models.resnet import ResNet
from neptune_jax.runs import checkpoints, weights

DATA = {'classes': ['a', 'b'], 'interval': [[3, {'loss': 0.1}]]}


def create(num_classes=2, num_devices=1):
    config = ConfigDict({'driver': 'auto', 'num_devices': num_devices, 'sync_batch_norm': True})
    model = CNN(num_classes=num_classes, features=(2,))
    return drivers.create(config), state.create(model, optax.adam(0.1), (4, 4, 1), seed=0)


@pytest.fixture
def opened(tmp_path):
    """Opens the checkpoints of a run in tmp_path."""

    def opened(keep=2):
        return checkpoints.open_checkpoints(tmp_path / 'checkpoints', keep)

    return opened


@pytest.mark.parametrize(('before', 'after'), [(1, 1), (1, 8), (8, 1)])
def test_a_state_comes_back_to_the_bit_on_any_number_of_devices(opened, before, after):
    devices, written = create(num_devices=before)
    # A zero has a sign, and a checkpoint keeps it.
    written = written.replace(params=jax.tree.map(lambda leaf: -0.0 * leaf, written.params))
    with opened() as manager:
        manager.save(3, devices.replicate(written), DATA)
    devices, other = create(num_devices=after)
    with opened() as manager:
        assert manager.steps == [3]
        restored = manager.restore(3, devices.abstract(other))
    assert (restored.step, restored.data) == (3, DATA)
    placed = devices.replicate(restored.state)
    assert {leaf.sharding for leaf in jax.tree.leaves(placed)} == {devices.replicated}
    assert jax.tree.structure(placed) == jax.tree.structure(written)
    for found, expected in zip(jax.tree.leaves(placed), jax.tree.leaves(written), strict=True):
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize(
    ('keep', 'accuracies', 'kept'),
    [
        (2, {1: 0.5, 2: 0.9, 3: None, 4: 0.7, 5: None, 6: 0.6}, [2, 5, 6]),
        (1, {1: 0.9, 2: 0.9, 3: 0.1}, [2, 3]),  # of equally good ones the later
        (1, {1: 0.5, 2: np.nan, 3: 0.4, 4: np.nan}, [1, 4]),  # NaN: the loss is not finite
    ],
)
def test_the_latest_and_the_best_are_kept(opened, tmp_path, keep, accuracies, kept):
    _, current = create()
    with opened(keep) as manager:
        for step, accuracy in accuracies.items():
            if accuracy is not None:
                manager.accuracies[step] = accuracy
            manager.save(step, current, DATA)
        manager.wait()
        assert manager.steps == kept
    assert {int(path.stem) for path in tmp_path.glob('checkpoints/*.crc32')} >= set(kept)
    for step in kept:
        checkpoints.verify(tmp_path / 'checkpoints', step)


def test_checksums_do_not_outlive_their_checkpoint(opened, tmp_path):
    _, current = create()

    def checksums():
        return {int(path.stem) for path in tmp_path.glob('checkpoints/*.crc32')}

    with opened(keep=1) as manager:
        for step in (1, 2, 3):
            manager.save(step, current, DATA)
    assert checksums() <= {2, 3}  # those of 2 are removed with the next save
    truncate(tmp_path / 'checkpoints/3/data/metadata')
    with opened(keep=1) as manager:
        assert manager.restore_first([3], current, lambda line: None) is None
        # A start that is killed now leaves nothing by which a new checkpoint would look damaged.
        assert 3 not in checksums()
        manager.save(3, current.replace(step=current.step + 3), DATA)
        manager.wait()
        assert int(manager.restore(3, current).state.step) == 3
    assert checksums() == {3}


@pytest.mark.parametrize('earlier', [False, True])
def test_statistics_of_averages_come_back_or_the_last_ones_for_earlier_versions(
    opened, tmp_path, earlier
):
    model = ResNet(num_classes=2, depth=8, width=2)
    current = state.create(model, optax.adam(0.1), (4, 4, 1), seed=0, ema=True)
    averages = jax.tree.map(lambda leaf: leaf + 3, current.ema_batch_stats)
    # An earlier version had no such field in its checkpoints.
    written = current.replace(ema_batch_stats={} if earlier else averages)
    with opened() as manager:
        manager.save(3, written, DATA)
    expected = current.batch_stats if earlier else averages
    lines = []
    with opened() as manager:
        restored = manager.restore_first([3], current, lines.append)
    assert len(lines) == earlier
    assert all('step 3, of an earlier version, has no batch' in line for line in lines)
    assert jax.tree.structure(restored.state) == jax.tree.structure(current)
    jax.tree.map(np.testing.assert_array_equal, restored.state.ema_batch_stats, expected)
    jax.tree.map(np.testing.assert_array_equal, restored.state.batch_stats, current.batch_stats)
    found = weights.read_weights(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.batch_stats, expected)
    jax.tree.map(np.testing.assert_array_equal, found.params, current.ema)


def test_a_deleted_checkpoint_leaves_nothing(opened, tmp_path):
    _, current = create()
    with opened() as manager:
        for step in (1, 2):
            manager.save(step, current, DATA)
        manager.delete(2)
        manager.delete(3)  # there is none
        assert manager.steps == [1]
        manager.save(2, current, DATA)
        manager.delete(2)
    assert {path.name for path in (tmp_path / 'checkpoints').iterdir()} == {'1', '1.crc32'}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize('damage', [flip, truncate, Path.unlink])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(opened, tmp_path, capfd, damage):
    _, current = create()
    with opened() as manager:
        for step in (1, 2):
            manager.save(step, current.replace(step=current.step + step), DATA)
    shutil.copytree(tmp_path / 'checkpoints', tmp_path / 'whole')
    names = [path.relative_to(tmp_path / 'whole') for path in tmp_path.glob('whole/2/*/**/*')]
    for name in names:
        shutil.rmtree(tmp_path / 'checkpoints')
        shutil.copytree(tmp_path / 'whole', tmp_path / 'checkpoints')
        if (tmp_path / 'checkpoints' / name).is_dir():
            continue
        damage(tmp_path / 'checkpoints' / name)
        warnings = []
        with opened() as manager:
            found = manager.restore_first(reversed(manager.steps), current, warnings.append)
            assert (found.step, int(found.state.step)) == (1, 1)
            assert manager.steps == [1]
            manager.save(2, current, DATA)  # there is room for a new one
        assert re.match('warning: the checkpoint of step 2 is damaged .*damaged now', warnings[0])
    assert (tmp_path / 'damaged/2').is_dir()
    assert (tmp_path / 'damaged/2.1').is_dir()
    assert capfd.readouterr().err == ''


def test_where_nothing_is_whole_there_is_nothing(opened, tmp_path):
    _, current = create()
    with opened() as manager:
        manager.save(1, current, DATA)
    truncate(tmp_path / 'checkpoints/1/data/metadata')
    with opened() as manager:
        assert manager.restore_first(manager.steps, current, print) is None


def test_another_model_is_refused_with_the_shapes_that_differ(opened):
    _, two_classes = create(2)
    _, three_classes = create(3)
    with opened() as manager:
        manager.save(1, two_classes, DATA)
    with opened() as manager, pytest.raises(UserError, match='of another model') as caught:
        manager.restore(1, three_classes)
    assert 'params/Dense_0/kernel: (8, 2) there, (8, 3) here' in str(caught.value)
    assert 'use the config it was written with' in str(caught.value)


def test_a_checkpoint_is_three_copies_of_the_parameters_and_less_than_a_mebibyte(opened, tmp_path):
    model = CNN(num_classes=10)
    current = state.create(model, optax.adam(0.1), (28, 28, 1), seed=0)
    rng = np.random.default_rng(0)  # what has been trained is hard to compress
    current = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), current)
    with opened() as manager:
        manager.save(1, current, DATA)
    size = sum(path.stat().st_size for path in tmp_path.rglob('*') if path.is_file())
    params = 4 * state.count_params(current.params)
    assert 0.8 * 3 * params < size  # nothing is missing
    assert size < 3 * params + 2**20


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path):
    huge = jax.ShapeDtypeStruct((2**50,), np.float32)
    with pytest.raises(OSError, match='No space left on device'):
        checkpoints.check_room(tmp_path, huge)
