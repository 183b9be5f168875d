"""What the flags of a command are checked for, without starting one."""

import types

import pytest

from neptune_jax import cli, defaults
from neptune_jax.errors import UserError


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [
        ('optim.lerning_rate', 'optim.learning_rate'),
        ('optm.learning_rate', 'optim.learning_rate'),
        ('train.epoch', 'train.epochs'),
        ('zzzz', None),  # nothing is near; still one line
        ('\u4e2d', None),
        ('model.name.zzzz', 'model.name'),
    ],
)
def test_a_field_that_does_not_exist_is_named_with_the_nearest_one(name, nearest):
    with pytest.raises(UserError) as caught:
        cli.check_field(name, defaults.get_config())
    message = str(caught.value)
    assert message.startswith(f'--config.{name}: there is no such field')
    if nearest:
        assert message.endswith(f'; did you mean {nearest}?')


@pytest.mark.parametrize(
    ('file', 'name'),
    [
        ('configs/cnn.py', 'cnn'),
        ('/elsewhere/a-b.c.py', 'a-b.c'),
        ('configs/cifar10.py:resnet', 'cifar10_resnet'),
        ('configs/net.py:depth=3,seed=1', 'net_depth_3_seed_1'),
    ],
)
def test_a_config_gives_its_run_directory_a_name(monkeypatch, file, name):
    flag = types.SimpleNamespace(config_filename=file)
    monkeypatch.setattr(cli, 'flags', types.SimpleNamespace(FLAGS={'config': flag}))
    assert cli.config_name() == name
