"""Groups of runs: which fields make them, and what they are called."""

import pytest

from neptune_jax.errors import UserError
from neptune_jax.reporting import records
from neptune_jax.reporting.run_record import Record


def runs(*configs, status='finished', images='x'):
    environment = {'data': {'sha256': {'test': images}}}
    return [
        Record(f'run{i}', status=status, config=config, environment=environment)
        for i, config in enumerate(configs)
    ]


def labels(groups):
    return [(group.label, len(group.records)) for group in groups]


def test_runs_that_differ_in_their_seeds_alone_are_a_group():
    found = runs(
        {'optim.name': 'sgd', 'seed': 0, 'data.dir': '/a', 'neptune.name': 'x'},
        {'optim.name': 'adam', 'seed': 0, 'data.dir': '/b', 'neptune.name': 'y'},
        {'optim.name': 'sgd', 'seed': 1, 'data.dir': '/c', 'neptune.name': 'z'},
    )
    assert records.differing(found) == ['optim.name']
    assert labels(records.group(found)) == [('optim.name=sgd', 2), ('optim.name=adam', 1)]
    assert labels(records.group(found[::2])) == [('all runs', 2)]
    assert records.group([]) == []


def test_values_of_any_type_are_compared_as_they_are():
    nan, other_nan = float('nan'), -float('nan')
    found = runs(
        {'a': nan, 'b': [1, [2]], 'c': 1, 'd': True, 'e': None},
        {'a': other_nan, 'b': [1, [2]], 'c': 1.0, 'd': True},
    )
    assert records.differing(found) == ['e']
    assert records.differing(runs({'d': True}, {'d': 1})) == ['d']
    groups = records.group(runs({'b': [1, 0.1]}, {'b': [1, 0.10000001]}, {'b': {}}))
    assert [group.label for group in groups] == ['b=[1, 0.1]', 'b=[1, 0.10000001]', 'b={}']


def test_fields_of_a_network_are_named_only_where_they_tell_runs_apart():
    found = runs(
        {'model.name': 'cnn', 'model.features': [4], 'seed': 0},
        {'model.name': 'resnet', 'model.depth': 20, 'seed': 0},
        {'model.name': 'resnet', 'model.depth': 32, 'seed': 0},
    )
    assert [group.label for group in records.group(found)] == [
        'model.name=cnn, model.depth=-',
        'model.name=resnet, model.depth=20',
        'model.name=resnet, model.depth=32',
    ]
    assert [group.label for group in records.group(found[:2])] == [
        'model.name=cnn',
        'model.name=resnet',
    ]
    assert set(records.group(found)[0].fields) == {'model.name', 'model.features', 'model.depth'}


def test_what_is_tried_together_is_named_together():
    found = runs({'optim.name': 'sgd', 'optim.learning_rate': 0.1}, {'optim.name': 'adam'})
    assert records.group(found)[0].label == 'optim.name=sgd, optim.learning_rate=0.1'


def test_runs_on_other_test_images_are_never_in_one_group():
    found = runs({'seed': 0}, {'seed': 1}) + runs({'seed': 2}, images='y' * 64)
    assert labels(records.group(found)) == [('test images x', 2), ('test images yyyyyyyy', 1)]


def test_a_person_chooses_the_fields_that_make_groups():
    configs = [
        {'optim.name': name, 'data.fold': fold, 'seed': 0}
        for name in ('sgd', 'adam')
        for fold in (0, 1)
    ]
    found = runs(*configs)
    groups = records.group(found, ['optim.name'])
    assert labels(groups) == [('optim.name=sgd', 2), ('optim.name=adam', 2)]
    assert list(groups[0].members()) == ['data.fold=0, seed=0', 'data.fold=1, seed=0']
    assert len(records.group(found)) == 4
    with pytest.raises(UserError, match=r'optim.nam: no run has'):
        records.group(found, ['optim.nam'])


def test_only_finished_runs_have_values():
    found = [
        Record('a', status='finished', config={'seed': 3}, summary={'test': {'accuracy': 0.5}}),
        Record('b', status='running', config={'seed': 1}, summary={'test': {'accuracy': 0.9}}),
        Record('c', status='finished', config={'seed': 2}, summary={'test': {'accuracy': 0.7}}),
        Record('d', status='finished', config={'seed': 2}, summary={'test': {'accuracy': 0.8}}),
        Record('e', status='finished', config={'seed': 5}, summary={}),
    ]
    (group,) = records.group(found)
    assert group.values('test/accuracy') == {2: 0.7, 3: 0.5, 'd': 0.8}
    assert list(group.values('test/accuracy')) == [2, 3, 'd']


def test_a_value_of_a_run_is_found_by_its_name():
    record = Record(
        'runs/a',
        status='running',
        config={'optim.name': 'sgd', 'train.epochs': 4},
        summary={'epochs': 1.0, 'best': {'step': 7}},
        rows=({'step': 1, 'val/accuracy': 0.3}, {'step': 2, 'val/accuracy': 0.2}, {'step': 3}),
    )
    assert record.value('last/val/accuracy') == 0.2
    assert record.best_validation == 0.3
    assert record.value('best/step') == 7
    assert record.value('optim.name') == 'sgd'
    assert record.value('progress') == 0.25
    assert record.value('nothing') is None
    assert record.value('test/accuracy') is None
