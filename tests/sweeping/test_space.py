"""Grids, points and spaces of a sweep: values, names, and what is refused before it trains."""

import itertools
import json
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from neptune_jax import defaults, models
from neptune_jax.errors import UserError
from neptune_jax.sweeping import space

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base():
    return defaults.get_config()


def test_a_grid_is_the_product_of_its_fields_the_last_fastest(base):
    texts = [
        'optim.name=sgd,adam',
        'seed=3:5',
        'model.features=(8, 16),(4,)',
        'optim.nesterov=true',
    ]
    expected = itertools.product(('sgd', 'adam'), (3, 4), ((8, 16), (4,)), (True,))
    points = space.grid(texts, base)
    assert [tuple(point.values()) for point in points] == list(expected)
    assert list(points[0]) == ['optim.name', 'seed', 'model.features', 'optim.nesterov']
    assert space.grid([], base) == [{}]


def test_values_have_the_types_of_their_fields(base):
    texts = [
        'optim.learning_rate=1',
        "optim.decay_at=('10%', '20%')",
        'data.subset=7',
        'data.path=3',
    ]
    (point,) = space.grid(texts, base)
    assert point == {
        'optim.learning_rate': 1.0,
        'optim.decay_at': ('10%', '20%'),
        'data.subset': 7,  # unset by default
        'data.path': '3',
    }
    assert type(point['optim.learning_rate']) is float


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('optim.learning_rat=1', 'no field'),
        ('optim=1', 'no field'),
        ('seed', 'names no values'),
        ('seed=a', "'a' is no value of seed, which holds a whole number"),
        ('seed=1.5', 'a whole number'),
        ('seed=5:5', 'must go up'),
        ('seed=0:9999999', 'must go up'),
        ('optim.nesterov=1', 'True or False'),
        ('model.features=(1', 'a tuple'),
    ],
)
def test_a_wrong_value_of_a_grid_is_named(base, text, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        space.grid([text], base)
    assert f'--grid={text}' in str(caught.value)


def test_a_field_given_twice_is_refused(base):
    with pytest.raises(UserError, match='given twice'):
        space.grid(['seed=0:2', 'seed=5'], base)
    with pytest.raises(UserError, match='given twice'):
        space.search(['optim.momentum=0:1', 'optim.momentum=0.1,0.2'], base)


def test_searches(base):
    texts = ['optim.learning_rate=log:1e-4:1', 'train.batch_size=8:11', 'model.hidden=(),(4,)']
    rate, size, hidden = space.search(texts, base)
    assert (rate.low, rate.high, rate.log, rate.kind) == (1e-4, 1, True, float)
    assert rate.at(0.5) == pytest.approx(1e-2)
    values = [size.at((i + 0.5) / 400) for i in range(400)]
    assert {value: values.count(value) for value in set(values)} == dict.fromkeys(range(8, 12), 100)
    assert [hidden.value(hidden.at(u)) for u in (0, 0.5)] == [(), (4,)]
    assert (rate.count, size.count, hidden.count) == (math.inf, 4, 2)
    assert all(dimension.at(0.0) is not None for dimension in (rate, size, hidden))
    for text in (
        'optim.momentum=1:0',
        'optim.momentum=log:0:1',
        'optim.momentum=0:inf',
        'optim.name=sgd',
        'optim.name=sgd:adam',
    ):
        with pytest.raises(UserError, match=re.escape(f'--search={text}')):
            space.search([text], base)


def test_corners_reach_each_end_and_each_choice(base):
    dimensions = space.search(['optim.momentum=0:0.9', 'optim.name=sgd,adam,adamw'], base)
    corners = space.corners(dimensions)
    assert {point['optim.momentum'] for point in corners} == {0, 0.9}
    assert {point['optim.name'] for point in corners} == {'sgd', 'adam', 'adamw'}


def test_the_command_line_of_a_trial_makes_its_config(base):
    """Each type of value survives the way through a flag of the training's command line."""
    point = {
        'optim.learning_rate': 1e-05,
        'optim.nesterov': True,
        'optim.decay_at': ['10%'],  # as in trial.json
        'optim.clip_norm': math.inf,
        'model.features': (7,),
        'model.activation': 'gelu',
        'data.subset': 9,
        'neptune.name': 'a = "b", c',
        'seed': 5,
    }
    program = (
        'from neptune_jax import cli; holder = cli.define_config(); '
        'cli.run(lambda args: print(holder.value.to_json()))'
    )
    arguments = [space.argument(name, value) for name, value in point.items()]
    command = [sys.executable, '-c', program, '--config=configs/simple_net.py', *arguments]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    made = ConfigDict(json.loads(made))
    made.model = models.complete_fields(made.model)
    simple = runpy.run_path(str(ROOT / 'configs/simple_net.py'))['get_config']()
    assert json.loads(made.to_json()) == json.loads(space.resolve(simple, point).to_json())


def test_resolve_refuses_what_the_command_line_would(base):
    for point, message in (
        ({'optim.rate': 1.0}, 'there is no field optim.rate'),
        ({'model.width': 3}, 'there is no field model.width'),
        ({'optim': {'name': 'sgd'}}, 'is a group'),
        ({'seed': 'x'}, "seed='x'"),
        ({'optim.name': None}, 'cannot be given'),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            space.resolve(base, point)
    assert space.resolve(base, {'train.steps': None}).train.steps is None


def test_configs_with_the_same_results_are_the_same(base):
    def identity(point):
        return space.identity(space.resolve(base, point))

    assert identity({}) == identity({'seed': 0, 'optim.learning_rate': 2e-3})
    assert identity({'log.every': '7 steps', 'data.dir': '/elsewhere'}) == identity({})
    assert identity({'model.dropout': 0.0}) == identity({})  # the default of the network
    assert identity({'seed': 1}) != identity({})
    assert identity({'optim.learning_rate': 1}) == identity({'optim.learning_rate': 1.0})


def test_names_tell_what_differs(base):
    points = space.grid(['optim.name=sgd,adam', 'seed=0:2', 'train.epochs=3'], base)
    assert space.names(points, base, [])[:3] == [
        'optim.name=sgd,seed=0',
        'optim.name=sgd,seed=1',
        'optim.name=adam,seed=0',
    ]
    assert space.names([{'seed': 4}], base, []) == ['seed=4']


def test_names_are_unique_short_and_safe(base):
    points = [
        {'data.path': '/a/b c'},
        {'data.path': '/a/b-c'},
        {'data.path': 'x' * 300},
        {'data.path': 'x' * 299 + 'y'},
        {'data.path': '..'},
        {'model.features': (32, 64)},
        {'data.path': '../../etc\n'},
    ]
    names = space.names(points, base, ['data.path=..'])
    assert len(set(names)) == len(points)
    for name in names:
        assert len(name) <= 100
        assert re.fullmatch(r'[\w.,+=-]+', name, re.ASCII)
    assert 'model.features=32x64' in names
    assert names == space.names(points, base, ['data.path=..'])  # the same in each process
