"""The table of config fields: its checks, and that it agrees with the rooms that use it."""

import math
import re
from pathlib import Path

import pytest
from ml_collections import config_dict

from neptune_jax import defaults, fields, models
from neptune_jax.data import augment, clean, dataset, standardize
from neptune_jax.data.sources import opening
from neptune_jax.errors import UserError
from neptune_jax.learning import losses, optimizers, schedules
from neptune_jax.models import weights_file
from neptune_jax.runs import files
from neptune_jax.tracking import sinks

PACKAGE = Path(defaults.__file__).parent


def test_the_defaults_are_in_range():
    defaults.check(defaults.get_config())


def test_the_config_has_every_field_with_its_type():
    flat = files.flatten(defaults.get_config().to_dict(), '.')
    fields = {name: field for name, field in defaults.FIELDS.items() if name != 'optim.options'}
    assert flat.keys() == fields.keys()
    for name, field in fields.items():
        assert flat[name] is None or type(flat[name]) is field.type, name


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('seed', -1, 'seed=-1 must be at least 0 and below 2**31'),
        ('seed', 2**31, f'seed={2**31} must be at least 0 and below 2**31'),
        ('train.steps', 0, 'train.steps=0 must be at least 1'),
        ('train.epochs', 0.0, 'train.epochs=0.0 must be above 0 and below 2**31'),
        ('train.epochs', float('inf'), 'train.epochs=inf must be above 0 and below 2**31'),
        ('optim.learning_rate', float('nan'), 'optim.learning_rate=nan must be from 0 to 1e38'),
        ('optim.momentum', -0.5, 'optim.momentum=-0.5 must be from 0 to 1'),
        ('optim.weight_decay', -0.5, 'optim.weight_decay=-0.5 must be from 0 to 1e38'),
        ('optim.clip_norm', -0.5, 'optim.clip_norm=-0.5 must be at least 0'),
        ('optim.decay_factor', -1.0, 'optim.decay_factor=-1.0 must be above 0 and at most 1e38'),
        ('augment.rotate', 181.0, 'augment.rotate=181.0 must be from 0 to 180'),
        ('loss.label_smoothing', 1.0, 'loss.label_smoothing=1.0 must be at least 0 and below 1'),
        ('data.resize', 'fit', "data.resize='fit' is unknown; choose one of: stretch, crop, pad"),
        ('optim.name', 'x', "optim.name='x' is unknown; choose one of: sgd, adam, adamw; or write"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(name, value, message):
    config = defaults.get_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=re.escape(message)):
        defaults.check(config)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('optim.clip_norm', float('inf')),
        ('optim.name', 'my.module:create'),
        ('data.name', 'tfds:rock_paper_scissors'),
        ('train.steps', None),
        ('augment.erase', 1.0),
    ],
)
def test_the_ends_of_a_range_and_names_of_ones_own_are_accepted(name, value):
    config = defaults.get_config()
    config.update_from_flattened_dict({name: value})
    defaults.check(config)


NUMBERS = [name for name, field in defaults.FIELDS.items() if field.type in (int, float)]


@pytest.mark.parametrize('name', NUMBERS)
def test_no_number_may_be_what_no_training_can_use(name):
    field = defaults.FIELDS[name]
    odd = [math.nan, -math.inf, -1, 'x', True, (1,), 1j]
    if name != 'optim.clip_norm':  # no limit
        odd += [math.inf, 1e308, 2**200]
    odd += [] if field.default is None else [None]
    if field.type is int:
        odd += [1.5, 1.0, 2**63]
        odd += [] if name == 'data.clean.max_pixels' else [2**31]
    for value in odd:
        with pytest.raises(UserError, match=re.escape(f'{name}=')) as error:
            fields.check(name, field, value)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('data.image_size', (8,), 'data.image_size=(8,) must have 0 or 2 elements'),
        ('data.image_size', (8, 0), 'data.image_size[1]=0 must be from 1 to 32768'),
        ('data.image_size', (2**31, 8), f'data.image_size[0]={2**31} must be from 1 to 32768'),
        ('data.image_size', (8, 8.0), 'data.image_size[1]=8.0 must be a whole number, not float'),
        ('data.image_size', (True, 8), 'data.image_size[0]=True must be a whole number, not bool'),
        ('data.image_size', 8, 'data.image_size=8 must be a tuple, not int'),
        ('train.profile_steps', (1, 2, 3), 'train.profile_steps=(1, 2, 3) must have 0 or 2'),
        ('train.profile_steps', (0, 2), 'train.profile_steps[0]=0 must be at least 1 and below'),
        ('train.profile_steps', (1, 2**31), f'train.profile_steps[1]={2**31} must be at least 1'),
        ('optim.decay_at', (50,), 'optim.decay_at[0]=50 must be a text, not int'),
        ('optim.decay_at', ('5%', 'x'), "optim.decay_at[1]='x' is not a length; write it like"),
        ('optim.decay_at', ('0 steps',), "optim.decay_at[0]='0 steps': the number must be above 0"),
        ('neptune.tags', (1,), 'neptune.tags[0]=1 must be a text, not int'),
        (
            'augment.extra',
            ('f',),
            "augment.extra[0]='f' is unknown; write 'package.module:name'",
        ),
        ('optim.options', 3, 'optim.options=3 must be a group of fields, not int'),
        ('optim.nesterov', 1, 'optim.nesterov=1 must be True or False, not int'),
        ('data.path', 'a\0b', "data.path='a\\x00b' holds a NUL character"),
        ('data.path', b'x', "data.path=b'x' must be a text, not bytes"),
    ],
)
def test_elements_of_tuples_and_types_are_checked(name, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        fields.check(name, defaults.FIELDS[name], value)


@pytest.mark.parametrize(
    'length',
    [
        *('5', '5 parsecs', '-5 steps', '0 steps', '0.0%', 'nan%', 'inf epochs', '1e400 epochs'),
        *('1e3 steps', '\u0663 steps', '9' * 500 + ' steps', '5 steps 6 steps', '0 seconds', ''),
    ],
)
@pytest.mark.parametrize('name', ['eval.every', 'checkpoint.every', 'log.every'])
def test_what_happens_every_so_often_has_a_finite_length_above_0(name, length):
    with pytest.raises(UserError, match=re.escape(name)):
        fields.check(name, defaults.FIELDS[name], length)


def test_a_number_that_python_does_not_print_is_refused():
    with pytest.raises(UserError, match=r'train\.steps=\(int\) must be at least 1 and below 2'):
        fields.check('train.steps', defaults.FIELDS['train.steps'], 10**5000)


def test_a_warm_up_may_be_0_and_a_checkpoint_be_due_by_the_clock():
    fields.check('optim.warmup', defaults.FIELDS['optim.warmup'], '0 steps')
    fields.check('checkpoint.every', defaults.FIELDS['checkpoint.every'], '0.5 seconds')
    with pytest.raises(UserError, match=r"log\.every='5 seconds' is not a length"):
        fields.check('log.every', defaults.FIELDS['log.every'], '5 seconds')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda c: c.optim.update(momentumm=1),
            'a field optim.momentumm; did you mean optim.m',
        ),
        (lambda c: c.update(more={'x': 1}), 'the config has a field more; did you mean'),
        (lambda c: c.__delitem__('log'), 'the config has no field log.every; start it from'),
        (
            lambda c: c.__setattr__('log', 3),
            'the group log of the config must be a Config',
        ),
        (lambda c: c.data.__setattr__('clean', None), 'the group data.clean of the config must be'),
        (
            lambda c: c.data.__setattr__('path', config_dict.required_placeholder(str)),
            'data.path has no value: ',
        ),
        (
            lambda c: c.train.__setattr__('batch_size', config_dict.placeholder(int)),
            'train.batch_size=None must be a whole number, not NoneType',
        ),
        (
            lambda c: c.optim.options.__setattr__('a', object()),
            'the group optim.options holds what no JSON file can hold: ',
        ),
    ],
)
def test_a_config_that_does_not_have_the_fields_is_refused(change, message):
    config = defaults.get_config()
    config.unlock()  # to lock it again would look at each value
    with config.ignore_type():
        change(config)
    with pytest.raises(UserError, match=re.escape(message)):
        defaults.check(config)


def test_the_choices_are_those_of_the_rooms_that_use_them():
    tables = {
        'model.name': models.MODELS,
        'data.mode': dataset.MODES,
        'data.standardize': standardize.FROM_TRAINING | standardize.PRESETS,
        'data.clean.duplicates': clean.DUPLICATES,
        'data.clean.near_duplicates': clean.NEAR_DUPLICATES,
        'augment.flip': augment.FLIPS,
        'checkpoint.names': weights_file.NAMES,
        'loss.name': losses.LOSSES,
        'optim.name': optimizers.OPTIMIZERS,
        'optim.schedule': schedules.SCHEDULES,
    }
    for name, table in tables.items():
        assert set(defaults.FIELDS[name].choices) == set(table), name
    assert {*defaults.FIELDS['data.name'].choices, 'tfds:NAME'} == set(opening.SOURCES)
    assert {*augment.OPERATIONS, *augment.MIXES, 'flip', 'extra'} == {
        name.removeprefix('augment.') for name in defaults.FIELDS if name.startswith('augment.')
    }
    assert 'neptune' in sinks.SINKS


def test_every_field_is_read_somewhere():
    source = '\n'.join(
        path.read_text() for path in PACKAGE.rglob('*.py') if path.name != 'defaults.py'
    )
    for name in defaults.FIELDS:
        last = name.rpartition('.')[2]
        is_operation = last in augment.OPERATIONS or last in augment.MIXES
        assert is_operation or re.search(rf"\.{last}\b|'{last}'|every\('{name[:-6]}'\)", source), (
            name
        )
