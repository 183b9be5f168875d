"""The table of config fields: its checks, and that it agrees with the rooms that use it."""

import re
from pathlib import Path

import pytest

from neptune_jax import defaults, models
from neptune_jax.data import augment, clean, dataset, sources, standardize
from neptune_jax.errors import UserError
from neptune_jax.learning import losses, optimizers, schedules
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
        ('optim.learning_rate', float('nan'), 'optim.learning_rate=nan must be from 0 to 1e6'),
        ('optim.momentum', -0.5, 'optim.momentum=-0.5 must be from 0 to 1'),
        ('optim.weight_decay', -0.5, 'optim.weight_decay=-0.5 must be from 0 to 1e6'),
        ('optim.clip_norm', -0.5, 'optim.clip_norm=-0.5 must be at least 0'),
        ('optim.decay_factor', -1.0, 'optim.decay_factor=-1.0 must be above 0 and at most 1e6'),
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


def test_the_choices_are_those_of_the_rooms_that_use_them():
    tables = {
        'model.name': models.MODELS,
        'data.mode': dataset.MODES,
        'data.standardize': standardize.FROM_TRAINING | standardize.PRESETS,
        'data.clean.duplicates': clean.DUPLICATES,
        'data.clean.near_duplicates': clean.NEAR_DUPLICATES,
        'augment.flip': augment.FLIPS,
        'loss.name': losses.LOSSES,
        'optim.name': optimizers.OPTIMIZERS,
        'optim.schedule': schedules.SCHEDULES,
    }
    for name, table in tables.items():
        assert set(defaults.FIELDS[name].choices) == set(table), name
    assert {*defaults.FIELDS['data.name'].choices, 'tfds:NAME'} == set(sources.SOURCES)
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
