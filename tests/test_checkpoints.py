import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from neptune_jax import checkpoints, parallel, state
from neptune_jax.models.cnn import CNN


def create(num_devices=1):
    devices = parallel.create(ConfigDict({'driver': 'auto'}), jax.devices()[:num_devices])
    model = CNN(num_classes=2, features=(2,))
    return devices, state.create(model, optax.adam(0.1), (4, 4, 1), seed=0)


@pytest.mark.parametrize(('before', 'after'), [(1, 1), (1, 8), (8, 1)])
def test_a_state_comes_back_to_the_bit_on_any_number_of_devices(tmp_path, before, after):
    devices, saved = create(before)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        checkpoints.save(manager, 3, devices.replicate(saved), {'classes': ['a', 'b']})
    devices, other = create(after)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        assert manager.latest_step() == 3
        restored, data = checkpoints.restore(manager, 3, devices.abstract(other))
    assert data == {'classes': ['a', 'b']}
    jax.tree.map(np.testing.assert_array_equal, restored, saved)
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {devices.replicated}
    assert jax.tree.structure(restored) == jax.tree.structure(saved)


def test_the_latest_and_the_best_are_kept(tmp_path):
    devices, current = create()
    current = devices.replicate(current)
    accuracies = {1: 0.5, 2: 0.9, 3: None, 4: 0.7, 5: None, 6: 0.6}
    with checkpoints.open_manager(tmp_path, keep=2) as manager:
        for step, accuracy in accuracies.items():
            checkpoints.save(manager, step, current, {}, accuracy)
        manager.wait_until_finished()
        assert manager.all_steps() == [2, 5, 6]


def test_of_equally_good_ones_the_later_is_kept(tmp_path):
    devices, current = create()
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        for step, accuracy in {1: 0.9, 2: 0.9, 3: 0.1}.items():
            checkpoints.save(manager, step, devices.replicate(current), {}, accuracy)
        manager.wait_until_finished()
        assert manager.all_steps() == [2, 3]
