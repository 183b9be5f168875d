"""Which runs a report is about: conditions, order, baseline."""

import itertools
import random

import pytest

from neptune_jax.errors import UserError
from neptune_jax.reporting import expressions, records, selection
from neptune_jax.reporting.run_record import Record

VALUES = {
    'optim.learning_rate': 0.05,
    'optim.name': 'sgd',
    'optim.nesterov': True,
    'status': 'finished',
    'test/accuracy': 0.93,
    'model.features': [32, 64],
    'seed': 1,
    'eval.every': '1 epoch',
    'optim.clip_norm': float('inf'),
    'train.steps': None,
}


@pytest.mark.parametrize(
    ('condition', 'expected'),
    [
        ('optim.learning_rate<0.1 and status==finished', True),
        ('optim.learning_rate<0.05', False),
        ('optim.learning_rate <= 5e-2', True),
        ('optim.learning_rate>=0.05', True),
        ('optim.learning_rate>.1', False),
        ('test/accuracy>0.9', True),
        ('optim.name=sgd', True),
        ('optim.name = "sgd"', True),
        ("optim.name!='sgd'", False),
        ('not optim.name==sgd', False),
        ('optim.name==adam or seed==1', True),
        # `and` binds closer than `or`, as in Python.
        ('optim.name==sgd or seed==2 and seed==3', True),
        ('(optim.name==sgd or seed==2) and seed==3', False),
        ('not seed==2 and seed==1', True),
        ('not (seed==2 or seed==1)', False),
        ('optim.nesterov==True', True),
        ('optim.nesterov==1', False),
        ('seed==True', False),
        ('seed==1.0', True),
        ('model.features==[32, 64]', True),
        ('model.features=[32,64]', True),
        ('model.features==[32]', False),
        ("eval.every=='1 epoch'", True),
        ('optim.clip_norm==inf', True),
        ('optim.clip_norm>1e300', True),
        ('train.steps==None', True),
        ('train.steps<5', False),
        ('train.steps>=5', False),
        ('nothing!=5', True),
        ('optim.name=sgd, seed=1', True),
        ('optim.name=sgd, seed=2', False),
        ('optim.name<t', True),
    ],
)
def test_a_condition_means_what_it_says(condition, expected):
    assert expressions.parse(condition, '--where').holds(VALUES.get) is expected


def test_conditions_agree_with_python():
    """Random conditions of and, or, not and parentheses against Python's own."""
    rng = random.Random(0)

    def condition(depth):
        if depth == 0:
            return f'a{rng.randrange(3)}=={rng.randrange(2)}'
        kind = rng.choice(['and', 'or', 'not', '()'])
        if kind == 'not':
            return f'not {condition(depth - 1)}'
        if kind == '()':
            return f'({condition(depth - 1)})'
        return f'{condition(depth - 1)} {kind} {condition(depth - 1)}'

    for _ in range(100):
        text = condition(rng.randrange(5))
        parsed = expressions.parse(text, '--where')
        for values in itertools.product((0, 1), repeat=3):
            names = {f'a{i}': value for i, value in enumerate(values)}
            assert parsed.holds(names.get) is eval(text, {}, names), text


@pytest.mark.parametrize(
    'condition',
    [
        '',
        'seed',
        'seed ==',
        '== 1',
        'seed==1 and',
        'seed==1 seed==2',
        '(seed==1',
        'seed==1)',
        'seed==[1',
        'seed==[1 2]',
        "seed=='1",
        'seed=!1',
        'seed==1 ?',
        '__import__("os").system("true")==1',
        'seed<>1',
        '(' * 10_000 + 'seed==1',
        'not ' * 10_000 + 'seed==1',
        'seed==' + '[' * 10_000,
    ],
)
def test_what_is_no_condition_is_a_mistake_of_one_line(condition):
    with pytest.raises(UserError, match=r'^--where=') as error:
        expressions.parse(condition, '--where').holds(VALUES.get)
    assert '\n' not in str(error.value)


def test_a_text_is_neither_above_nor_below_a_number():
    with pytest.raises(UserError, match=r'eval.every is .1 epoch. in a run'):
        expressions.parse('eval.every<2', '--where').holds(VALUES.get)


def run(name, accuracy=None, **config):
    summary = {'test': {'accuracy': accuracy}} if accuracy is not None else {}
    return Record(name, status='finished', config=config, summary=summary)


RUNS = [
    run('c', 0.9, seed=0, width=1),
    run('a', None, seed=1, width=2),
    run('d', 0.8, seed=1, width=1),
    Record('foreign', problem='holds no run'),
    run('b', float('nan'), seed=2, width=None),
]


def names(found):
    return ''.join(record.name[0] for record in found)


def test_where_selects_runs():
    assert names(selection.where(RUNS, 'seed==1')) == 'ad'
    assert names(selection.where(RUNS, 'test/accuracy>0.85')) == 'c'
    assert names(selection.where(RUNS, 'name==b or name==c')) == 'cb'
    assert names(selection.where(RUNS, 'width==None')) == 'b'


def test_a_field_that_no_run_has_is_a_mistake():
    with pytest.raises(UserError, match="'sed'; did you mean seed"):
        selection.where(RUNS, 'sed==1')
    with pytest.raises(UserError, match=r'--sort=test/acuracy: .*did you mean test/accuracy'):
        selection.sort(RUNS, 'test/acuracy')
    with pytest.raises(UserError, match='none of the 5 runs'):
        selection.select(RUNS, 'seed==7')
    with pytest.raises(UserError, match=r'no run to report .foreign: holds no run'):
        selection.select(RUNS[3:4])


def test_sort_puts_unknown_values_last_in_both_directions():
    assert names(selection.sort(RUNS, 'test/accuracy')) == 'dcabf'
    assert names(selection.sort(RUNS, '-test/accuracy')) == 'cdabf'
    assert names(selection.sort(RUNS, 'width,-seed')) == 'dcabf'
    assert names(selection.sort(RUNS, 'name')) == 'abcdf'
    mixed = [run('1', x='b'), run('2', x=3), run('3', x=[1]), run('4', x='a'), run('5', x=1)]
    assert names(selection.sort(mixed, 'x')) == '52413'


def test_the_baseline_is_one_group():
    groups = records.group([run('a', x=1, y='u v'), run('b', x=2, y='u v'), run('c', x=2, y='w')])
    assert selection.baseline(groups, 'x=1') is groups[0]
    assert selection.baseline(groups, groups[1].label) is groups[1]
    assert selection.baseline(groups, 'x=2, y=w') is groups[2]
    assert selection.baseline(groups, "x==2 and y!='w'") is groups[1]
    with pytest.raises(UserError, match='2 groups are that; name one of'):
        selection.baseline(groups, 'x=2')
    with pytest.raises(UserError, match='no group is that'):
        selection.baseline(groups, 'x=3')
    with pytest.raises(UserError, match='did you mean'):
        selection.baseline(groups, 'xx=3')
