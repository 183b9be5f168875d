import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax.devices import drivers
from neptune_jax.errors import UserError


def create(driver, num_devices=8):
    config = {'driver': driver, 'num_devices': num_devices, 'sync_batch_norm': True}
    return drivers.create(ConfigDict(config))


@pytest.mark.parametrize(
    ('asked', 'num_devices', 'driver'),
    [('auto', 1, 'jit'), ('auto', 8, 'pmap'), ('jit', 8, 'jit'), ('pmap', 1, 'pmap')],
)
def test_auto_is_jit_on_one_device_and_pmap_on_several(asked, num_devices, driver):
    devices = create(asked, num_devices)
    assert devices.driver == driver
    assert devices.num_devices == num_devices


def test_unknown_driver_is_refused():
    with pytest.raises(UserError, match=r"parallel.driver='tpu'.*auto"):
        create('tpu')


@pytest.mark.parametrize('batch_size', [0, -8, 12])
def test_a_batch_that_devices_cannot_share_is_refused(batch_size):
    with pytest.raises(UserError, match=f'train.batch_size={batch_size} .* 8 device'):
        drivers.check_divisible(create('pmap'), batch_size, 'train.batch_size')
    drivers.check_divisible(create('pmap'), 16, 'train.batch_size')


@pytest.mark.parametrize('driver', ['jit', 'pmap', 'shard_map'])
@pytest.mark.parametrize('num_devices', [1, 8])
def test_state_stays_unstacked_and_replicated_and_is_donated(driver, num_devices):
    devices = create(driver, num_devices)

    def step(state, batch):
        total = batch.sum()
        if devices.axis_name is not None:
            total = jax.lax.psum(total, devices.axis_name)
        return {'total': state['total'] + total, 'weights': state['weights'] * 2}

    state = devices.replicate({'total': np.float32(0), 'weights': np.ones(5, np.float32)})
    batch = np.arange(16, dtype=np.float32)
    run = devices.compile(step, state, devices.shard(batch), sharded=1, donate=(0,))
    with jax.transfer_guard('disallow'):
        after = run(state, devices.shard(batch))
        after = run(after, devices.shard(batch))
    assert state['weights'].is_deleted()
    assert after['weights'].shape == (5,)
    assert after['weights'].sharding.is_equivalent_to(devices.replicated, 1)
    np.testing.assert_array_equal(after['total'], 2 * batch.sum())
    np.testing.assert_array_equal(after['weights'], np.full(5, 4))


@pytest.mark.parametrize('driver', ['jit', 'pmap', 'shard_map'])
def test_a_compiled_step_refuses_another_shape(driver):
    devices = create(driver)
    arg = devices.shard(np.zeros(16, np.float32))
    run = devices.compile(lambda x: jnp.zeros(()), arg, sharded=0)
    with pytest.raises(TypeError, match='compiled with float32'):
        run(devices.shard(np.zeros(24, np.float32)))
