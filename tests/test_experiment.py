"""What an experiment refuses before anything is compiled or written."""

import os
import sys

import pytest

from neptune_jax import experiment
from neptune_jax.errors import UserError


@pytest.fixture
def small_memory(monkeypatch):
    """A machine with a mebibyte."""
    sizes = {'SC_PAGE_SIZE': 4096, 'SC_PHYS_PAGES': 256}
    monkeypatch.setattr(os, 'sysconf', lambda name: sizes[name])


def test_what_no_device_can_hold_is_refused(config, small_memory):
    config.data.mode = 'host'
    experiment.create(config)  # 100 KiB of images of a batch on each of two devices
    config.eval.batch_size = 2000
    with pytest.raises(UserError, match=r'^eval\.batch_size=2000 needs .*; make it smaller'):
        experiment.create(config)
    config.eval.batch_size = 200
    config.model.hidden = (2000,)  # 784,000 weights and two moments of each
    with pytest.raises(UserError, match=r'^the network of config\.model needs 0\.0 GiB on each'):
        experiment.create(config)


def test_steps_are_counted_in_int32(config):
    config.train.steps = None  # the steps of an epoch are at least 2
    config.train.epochs = 2.0**30
    with pytest.raises(
        UserError, match=r'^train\.epochs=1073741824\.0 are \d+ steps; there must be'
    ):
        experiment.create(config)
    config.train.steps = 2**31 - 1
    assert experiment.create(config).total_steps == 2147483647


@pytest.mark.parametrize(
    ('field', 'name', 'message'),
    [
        ('model.name', 'os:getcwd', "model.name='os:getcwd' is no Flax module"),
        ('model.name', 'os:sep', "model.name='os:sep' is of type str; it cannot be called"),
        ('loss.name', 'json:dumps', "loss.name='json:dumps' does not work: TypeError: dumps()"),
        ('loss.name', 'own:total', "loss.name='own:total' must return one loss an example"),
        ('loss.name', 'own:broken', "loss.name='own:broken' does not work: ZeroDivisionError: "),
        ('optim.name', 'math:sin', "optim.name='math:sin' does not work: TypeError: "),
        ('optim.schedule', 'json:dumps', "optim.schedule='json:dumps' does not work: TypeError"),
        ('optim.schedule', 'raising:x', "optim.schedule='raising:x': cannot import 'raising': no"),
    ],
)
def test_an_object_of_ones_own_that_does_not_work_is_named(
    config, tmp_path, monkeypatch, field, name, message
):
    (tmp_path / 'own.py').write_text(
        'def total(logits, labels, smoothing):\n    return logits.sum()\n\n\n'
        'def broken(logits, labels, smoothing):\n    return logits / (1 // 0)\n'
    )
    (tmp_path / 'raising.py').write_text('raise RuntimeError("no\\nway")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'own', raising=False)
    config.update_from_flattened_dict({field: name})
    if field == 'model.name':
        config.model = {'name': name}
    with pytest.raises(UserError) as error:
        experiment.create(config)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)
    if name == 'own:broken':
        assert str(error.value).endswith(f'({tmp_path}/own.py, line 6)')
