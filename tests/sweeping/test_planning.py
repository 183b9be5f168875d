"""From a request to trials and their directories: what is refused, what is kept, what is added."""

import re

import pytest
from ml_collections import ConfigDict

from neptune_jax import defaults
from neptune_jax.errors import UserError
from neptune_jax.runs import files
from neptune_jax.sweeping import planning, workers
from neptune_jax.sweeping.planning import Plan, Request


@pytest.fixture
def plan(tmp_path):
    """Makes a plan, whose directories are found and whose sweep.json is written."""

    def plan(grid=(), points=None, search=(), arguments=(), write=True, config=None, **more):
        base = defaults.get_config()
        base.update_from_flattened_dict(config or {})
        plan = Plan(
            Request(
                config=base,
                config_file='configs/cnn.py',
                config_arguments=list(arguments),
                points=points,
                grid=grid,
                search=search,
                out=str(tmp_path / 'out'),
                environ={},
                **more,
            )
        )
        plan.find_trials(write)
        return plan

    return plan


def names(plan):
    return [trial.name for trial in plan.trials]


def start(trial):
    trial.directory.mkdir(parents=True, exist_ok=True)
    trial.describe()
    files.write_json(trial.path('config.json'), {})


def test_points_come_in_order_and_each_config_once(plan):
    points = [{'seed': 1}, {'seed': 0}, {}, {'seed': 1, 'optim.momentum': 0.9}]  # {} is seed 0
    found = plan(points=points)
    assert [trial.overrides for trial in found.trials] == [{'seed': 1}, {'seed': 0}]
    found = plan(points=[{'optim.name': 'sgd'}, {'optim.name': 'adamw'}], grid=['seed=0:2'])
    assert [tuple(trial.overrides.values()) for trial in found.trials] == [
        ('sgd', 0),
        ('sgd', 1),
        ('adamw', 0),
        ('adamw', 1),
    ]


def test_the_grid_outranks_the_points_of_the_file(plan):
    points = [{'optim.name': name, 'seed': seed} for name in ('sgd', 'adam') for seed in (0, 1)]
    found = plan(points=points, grid=['seed=5:8'])
    assert [trial.overrides['seed'] for trial in found.trials] == [5, 6, 7] * 2


def test_more_seeds_extend_a_sweep_and_directories_keep_their_configs(plan):
    first = plan(grid=['optim.name=sgd,adam'])
    assert names(first) == ['optim.name=sgd', 'optim.name=adam']
    start(first.trials[0])
    more = plan(grid=['optim.name=sgd,adam,adamw', 'seed=0:2'])
    assert names(more) == [
        'optim.name=sgd',  # seed 0, which it had before
        'optim.name=sgd,seed=1',
        'optim.name=adam',
        'optim.name=adam,seed=1',
        'optim.name=adamw,seed=0',
        'optim.name=adamw,seed=1',
    ]
    assert len({trial.number for trial in more.trials}) == 6
    assert names(plan(grid=['seed=1', 'optim.name=adam'])) == ['optim.name=adam,seed=1']


def test_the_same_name_never_stands_for_two_configs(plan):
    assert names(plan(grid=['optim.name=sgd,adam'])) == ['optim.name=sgd', 'optim.name=adam']
    found = names(plan(grid=['optim.name=sgd,adam', 'seed=7']))
    assert found == ['optim.name=sgd,seed=7', 'optim.name=adam,seed=7']


def test_without_sweep_json_the_directories_tell_what_they_hold(plan, tmp_path):
    first = plan(grid=['seed=0:3'])
    for trial in first.trials[:2]:
        start(trial)
    (tmp_path / 'out/sweep.json').unlink()
    again = plan(grid=['seed=0:3', 'optim.name=adam'])
    assert names(again)[:2] == ['seed=0', 'seed=1']
    assert again.trials[2].name == 'seed=2'


def test_sweep_json_says_what_was_asked_for(plan, tmp_path):
    plan(grid=['seed=0:2'], arguments=['--config.optim.momentum=0.5'])
    value = files.read_json(tmp_path / 'out/sweep.json')
    assert value['config'] == 'configs/cnn.py'
    assert value['arguments'] == ['--config.optim.momentum=0.5']
    assert value['trials'] == {'seed=0': {'seed': 0}, 'seed=1': {'seed': 1}}
    assert value['objective'] == 'val/accuracy'
    assert value['fields']['optim.learning_rate'] == 2e-3


def test_another_config_is_refused_in_the_same_directory(plan):
    plan(grid=['seed=0:2'])
    with pytest.raises(UserError, match=r'another config \(train.epochs: 10.0 there, 3.0 here\)'):
        plan(grid=['seed=0:2'], config={'train.epochs': 3.0})
    plan(grid=['seed=0:2'], config={'log.every': '3 steps'})  # the results do not depend on it
    with pytest.raises(UserError, match='holds no search, and this is a search'):
        plan(search=['optim.momentum=0:1'])


def test_a_search_may_grow_but_not_change(plan):
    first = plan(search=['optim.momentum=0:1'], trials=3)
    assert names(first) == ['0000', '0001', '0002']
    assert all(first.suggest(trial) for trial in first.trials)
    assert len({trial.overrides['optim.momentum'] for trial in first.trials}) == 3
    more = plan(search=['optim.momentum=0:1'], trials=5)
    assert [trial.overrides for trial in more.trials[:3]] == [
        trial.overrides for trial in first.trials
    ]
    assert more.trials[4].overrides is None
    for change in ({'search': ['optim.momentum=0:0.5']}, {'seed': 1}, {'objective': 'val/loss'}):
        with pytest.raises(UserError, match='holds another search'):
            plan(**{'search': ['optim.momentum=0:1']} | change)
    with pytest.raises(UserError, match='holds a search, and this is no search'):
        plan(grid=['seed=0:2'])


def test_two_processes_ask_one_after_the_other(plan):
    """The second one gets what the first one has written, not a suggestion of its own."""
    first = plan(search=['optim.momentum=0:1'], trials=1)
    second = plan(search=['optim.momentum=0:1'], trials=1)
    assert first.suggest(first.trials[0])
    assert second.suggest(second.trials[0])
    assert first.trials[0].overrides == second.trials[0].overrides


def test_a_finite_search_ends_with_its_space(plan):
    found = plan(search=['optim.name=sgd,adam', 'optim.nesterov=true,false'], trials=9)
    assert [found.suggest(trial) for trial in found.trials] == [True] * 4 + [False] * 5


@pytest.mark.parametrize(
    ('request_', 'message'),
    [
        ({}, 'vary something'),
        ({'points': []}, 'yields nothing'),
        ({'grid': ['seed=0:2'], 'search': ['optim.momentum=0:1']}, 'cannot be combined'),
        ({'grid': ['seed=0:2'], 'trials': 3}, '--trials'),
        ({'grid': ['seed=0:2'], 'arguments': ['--config.seed=3']}, 'sets seed itself'),
        ({'search': ['optim.momentum=0:1'], 'arguments': ['--config.optim.momentum=0']}, 'itself'),
        ({'grid': ['seed=0:2'], 'arguments': [], 'objective': 'test/accuracy'}, 'no test any more'),
        ({'points': [{'seed': 0}, {'optim.nme': 'sgd'}]}, 'trial 2 of 2 (optim.nme'),
    ],
)
def test_mistakes_are_found_before_anything_is_written(plan, tmp_path, request_, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plan(**request_)
    assert not (tmp_path / 'out').exists()


def test_a_run_directory_is_no_place_for_a_sweep(plan, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/config.json').write_text('{}')
    with pytest.raises(UserError, match='directory of a single run'):
        plan(grid=['seed=0:2'])


def test_shards_share_the_trials():
    parts = [planning.shard(range(10), f'{i}/3') for i in (1, 2, 3)]
    assert sorted(item for part in parts for item in part) == list(range(10))
    assert {len(part) for part in parts} == {3, 4}
    for part in ('0/3', '4/3', 'a/b', '3', ''):
        with pytest.raises(UserError, match='--shard'):
            planning.shard([], part)


def test_configs_to_check_are_those_that_have_not_started(plan):
    first = plan(grid=['seed=0:3'])
    start(first.trials[1])
    assert [name for name, _ in first.configs()] == ['trial seed=0', 'trial seed=2']
    assert all(isinstance(config, ConfigDict) for _, config in first.configs())


def test_trials_of_one_program_differ_in_their_seeds_alone(plan):
    found = plan(grid=['optim.name=sgd,adam', 'seed=0:3'], together=2)
    assert [[trial.number for trial in unit] for unit in planning.units(found.trials, 2)] == [
        [0, 1],
        [2],
        [3, 4],
        [5],
    ]
    assert planning.units(found.trials, 1) == [[trial] for trial in found.trials]


def test_a_search_cannot_train_seeds_together(plan):
    with pytest.raises(UserError, match=r'--together=2 .* combined with --search'):
        plan(search=['optim.learning_rate=log:1e-4:1'], together=2)


def test_the_command_of_a_unit_keeps_the_places_of_the_others(plan):
    found = plan(grid=['optim.name=sgd', 'seed=0:3'], together=3).trials
    command = workers.Command('configs/cnn.py', ['--config.train.epochs=1'], {}, 0)
    arguments = command.together([found[0], found[2]], found)
    directories = [trial.directory for trial in found]
    assert arguments[1:] == [
        '-m',
        'neptune_jax.together',
        '--config=configs/cnn.py',
        '--config.train.epochs=1',
        '--config.optim.name=sgd',
        f'--run=0:{directories[0]}',
        '--run=1:',
        f'--run=2:{directories[2]}',
    ]
