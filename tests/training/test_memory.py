"""What is said where memory is used up: real errors of JAX and NumPy, which ask for too much."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neptune_jax.data import dataset
from neptune_jax.errors import UserError, is_out_of_memory
from neptune_jax.runs import checkpoints, reader
from neptune_jax.training import compiled, loop, memory

pytestmark = pytest.mark.usefixtures('standard_promotion')

TOO_MUCH = 2**50  # bytes: more than a process can address


def exhaust_device(*_):
    jax.block_until_ready(jax.jit(lambda: jnp.zeros(TOO_MUCH, jnp.uint8))())


def exhaust_host(*_, **__):
    np.zeros(TOO_MUCH, np.uint8)


@pytest.fixture
def config(config):
    config.parallel.update(driver='jit', num_devices=1)
    return config


@pytest.mark.parametrize('place', ['compile_train_step', 'compile_evaluate'])
@pytest.mark.parametrize('exhaust', [exhaust_device, exhaust_host])
def test_out_of_memory_fails_the_run_in_a_line_that_says_what_to_reduce(
    config, tmp_path, monkeypatch, exhaust, place
):
    monkeypatch.setattr(compiled, place, lambda *_: exhaust)
    with pytest.raises(UserError) as caught:
        loop.train_and_evaluate(config, tmp_path)
    message = str(caught.value)
    assert message.startswith('out of memory (')
    assert {exhaust_device: str(TOO_MUCH), exhaust_host: '1.00 PiB'}[exhaust] in message
    # 3,000 images of 28x28 bytes; the parameters, Adam's two averages and three counters.
    params = 4 * 9 + 4 + 8 * 4 * 9 + 8 + 7 * 7 * 8 * 10 + 10
    assert 'train.batch_size=64, eval.batch_size=200, 2.24 MiB of images on each device' in message
    assert f'{12 * params / 2**20:,.2f} MiB of parameters' in message
    for field in ('train.batch_size', 'train.accumulate', 'eval.batch_size', 'data.mode=host'):
        assert field in message.partition(';')[2]
    assert '\n' not in message
    summary = reader.read_summary(tmp_path)
    assert (summary['status'], summary['error']) == ('failed', message)


def test_data_that_do_not_fit_are_explained_before_a_run_exists(config, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, 'load', exhaust_host)
    with pytest.raises(UserError, match=r'out of memory \(.*1.00 PiB.*data.image_size') as caught:
        loop.train_and_evaluate(config, tmp_path / 'run')
    assert 'data.mode=stream' in str(caught.value)
    assert not (tmp_path / 'run').exists()


def test_a_checkpoint_for_which_there_is_no_memory_is_not_damaged(config, tmp_path, monkeypatch):
    loop.train_and_evaluate(config, tmp_path)
    summary = tmp_path / 'summary.json'
    summary.write_text(summary.read_text().replace('finished', 'running'))
    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, 'restore', exhaust_host)
    with pytest.raises(UserError, match='out of memory'):
        loop.train_and_evaluate(config, tmp_path)
    assert reader.checkpoint_steps(tmp_path) == [3, 6]
    assert not (tmp_path / 'damaged').exists()


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        # As a computation that was dispatched before says it.
        (RuntimeError('INTERNAL: Error dispatching computation: Out of memory allocating 9'), True),
        (RuntimeError('INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory'), True),
        (RuntimeError('INVALID_ARGUMENT: shapes differ'), False),
        (ValueError('out of memory of this'), False),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
    ],
)
def test_other_errors_pass(config, error, expected):
    assert is_out_of_memory(error) == expected
    with pytest.raises(UserError if expected else type(error)), memory.explained(config):
        raise error
