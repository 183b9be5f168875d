"""Comparisons of groups: by the right test, and not at all where that would mislead."""

import math

import numpy as np
import pytest
import scipy.stats

from neptune_jax.reporting import compact, comparisons, records, statistics
from neptune_jax.runs import files


def compare(folders, metric='test/accuracy', by=None, baseline=None):
    groups = records.group(records.read(folders), by)
    return comparisons.compare_all(groups, metric, baseline), groups


def test_groups_with_the_same_seeds_are_compared_in_pairs(two_groups):
    (found,), groups = compare([two_groups])
    adam, sgd = groups  # as their folders are sorted
    assert (found.a, found.b) == (adam, sgd)
    assert found.method == 'paired'
    assert found.pairs == ((0, 0.93, 0.9), (1, 0.935, 0.91), (2, 0.95, 0.92))
    expected = scipy.stats.ttest_rel([0.93, 0.935, 0.95], [0.9, 0.91, 0.92])
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.adjusted == found.p_value
    assert found.sign_flip_p == 0.25
    assert found.superiority == 1
    assert found.superiority_low == pytest.approx(statistics.wilson(3, 3)[0])


def test_other_seeds_are_compared_by_welchs_test(two_groups, make_run):
    make_run(two_groups / 'more', fields={'optim.name': 'sgd'}, seed=7, accuracy=0.89)
    (found,), _ = compare([two_groups])
    expected = scipy.stats.ttest_ind([0.93, 0.935, 0.95], [0.89, 0.9, 0.91, 0.92], equal_var=False)
    assert found.method == 'welch'
    assert found.p_value == pytest.approx(expected.pvalue)
    assert math.isnan(found.sign_flip_p)
    assert found.a.label == 'optim.name=sgd'
    assert found.superiority == 0
    assert 0 < found.superiority_high < 0.5


def test_as_many_runs_of_other_seeds_are_no_pairs(two_groups):
    run = two_groups / 'optim.name=sgd,seed=2'
    config = files.read_json(run / 'config.json')
    files.write_json(run / 'config.json', {**config, 'seed': 9})
    (found,), _ = compare([two_groups])
    assert found.method == 'welch'
    assert found.pairs == ()


def test_a_smaller_loss_is_better(two_groups):
    (found,), _ = compare([two_groups], 'test/loss')
    assert found.difference < 0
    assert found.superiority == 1


def test_two_single_runs_are_compared_by_the_images(two_groups):
    runs = [two_groups / f'optim.name={name},seed=0' for name in ('sgd', 'adam')]
    (found,), _ = compare(runs)
    sgd, adam = (np.load(run / 'artifacts/predictions.npz')['prediction'] == 0 for run in runs)
    b, c = int((sgd & ~adam).sum()), int((adam & ~sgd).sum())
    assert found.method == 'mcnemar'
    assert (found.only_a, found.only_b) == (b, c)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(b, b + c).pvalue)
    assert (found.difference, (found.low, found.high)) == statistics.paired_difference(b, c, 200)
    assert found.difference == pytest.approx((b - c) / 200)


def test_compact_records_are_compared_like_directories(two_groups, tmp_path):
    path = tmp_path / 'results.jsonl'
    path.write_text(''.join(f'{line}\n' for line in compact.lines(records.read([two_groups]))))
    for condition in ('seed', 'all'):
        found = []
        for source in (two_groups, path):
            runs = records.read([source])
            runs = [run for run in runs if condition == 'all' or run.config['seed'] == 0]
            groups = records.group(runs)
            own = comparisons.compare_all(groups, 'test/accuracy')
            found.append(
                [
                    (each.method, each.p_value, each.low, each.only_a, each.difference)
                    for each in own
                ]
            )
            between = [comparisons.summarize(each, 'test/accuracy').between for each in groups]
            found[-1] += [tuple(each) for each in between]
        assert str(found[0]) == str(found[1])


def test_a_summary_of_a_group(two_groups):
    _, groups = compare([two_groups])
    sgd = comparisons.summarize(groups[1], 'test/accuracy')
    assert sgd.values == {0: 0.9, 1: 0.91, 2: 0.92}
    assert sgd.mean.mean == pytest.approx(0.91)
    assert sgd.mean.deviation == pytest.approx(0.01)
    assert sgd.count == 200
    assert sgd.binomial_error == pytest.approx(math.sqrt(0.91 * 0.09 / 200))
    correct = np.stack(
        [
            np.load(record.workdir + '/artifacts/predictions.npz')['prediction'] == 0
            for record in groups[1].records
        ]
    )
    assert sgd.between == statistics.between_runs_deviation(correct)
    loss = comparisons.summarize(groups[1], 'test/loss')
    assert math.isnan(loss.binomial_error)
    assert math.isnan(loss.between.distribution)


def test_runs_with_other_lists_of_images_have_no_deviation_together(two_groups):
    path = two_groups / 'optim.name=sgd,seed=1/artifacts/predictions.npz'
    with np.load(path) as arrays:
        changed = {**arrays, 'index': arrays['index'][::-1]}
    np.savez(path, **changed)
    _, groups = compare([two_groups])
    assert math.isnan(comparisons.summarize(groups[1], 'test/accuracy').between.distribution)
    assert comparisons.summarize(groups[0], 'test/accuracy').between.distribution >= 0


def test_several_comparisons_are_adjusted(two_groups, make_run):
    for seed in range(3):
        make_run(
            two_groups / f'{seed}',
            fields={'optim.name': 'adamw'},
            seed=seed,
            accuracy=0.94 + 0.003 * seed,
        )
    found, groups = compare([two_groups])
    assert len(found) == 3
    assert [each.adjusted for each in found] == statistics.holm([each.p_value for each in found])
    assert any(each.adjusted > each.p_value for each in found)
    against, _ = compare([two_groups], baseline=None)
    assert len(against) == 3
    only = comparisons.compare_all(groups, 'test/accuracy', groups[1])
    assert [(each.a.label, each.b.label) for each in only] == [
        (groups[0].label, groups[1].label),
        (groups[2].label, groups[1].label),
    ]


def test_many_groups_are_compared_with_a_baseline_only(tmp_path, make_run):
    for i in range(6):
        make_run(tmp_path / f'{i}', fields={'train.batch_size': 2**i}, accuracy=0.9 + 0.01 * i)
    found, groups = compare([tmp_path])
    assert found == []
    assert len(comparisons.compare_all(groups, 'test/accuracy', groups[0])) == 5


def change(run, name, **values):
    files.write_json(run / name, {**files.read_json(run / name), **values})


def test_unfinished_runs_are_not_compared(two_groups):
    change(two_groups / 'optim.name=sgd,seed=1', 'summary.json', status='running')
    (found,), _ = compare([two_groups])
    assert found.refusal.startswith("status: 1 of 3 runs of 'optim.name=sgd' are not finished")
    assert '(running)' in found.refusal
    assert '\n' not in found.refusal
    assert math.isnan(found.p_value)
    assert math.isnan(found.difference)


@pytest.mark.parametrize('seeds', [(0, 1, 2), (7, 8, 9)])
def test_other_test_images_are_not_compared(two_groups, make_run, tmp_path, seeds):
    others = [
        make_run(tmp_path / f'other{seed}', seed=seed, images='ef', fields={'optim.name': 'adamw'})
        for seed in seeds
    ]
    found, _ = compare([two_groups, *others])
    refusals = [each.refusal for each in found if 'adamw' in each.a.label + each.b.label]
    assert len(refusals) == 2
    for refusal in refusals:
        assert refusal.startswith('environment.json data.sha256.test: ')
        assert 'aaaaaaaa' in refusal
        assert 'efefefef' in refusal
    assert [each.refusal for each in found].count('') == 1


def test_images_that_nobody_named_are_not_compared(two_groups):
    change(two_groups / 'optim.name=sgd,seed=1', 'environment.json', data={})
    found, _ = compare([two_groups], by=['optim.name'])
    assert any('data.sha256.test' in each.refusal for each in found)


def test_validation_results_need_the_same_validation_images(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    environment = files.read_json(run / 'environment.json')
    environment['data']['sha256']['val'] = '00' * 32
    files.write_json(run / 'environment.json', environment)
    (found,), _ = compare([two_groups], 'val/accuracy')
    assert found.refusal.startswith('environment.json data.sha256.val: ')
    (found,), _ = compare([two_groups], 'last/val/accuracy')
    assert found.refusal.startswith('environment.json data.sha256.val: ')
    (found,), _ = compare([two_groups])
    assert found.refusal == ''


def test_the_best_checkpoint_is_not_compared_with_the_last(tmp_path, make_run):
    for seed in range(2):
        make_run(tmp_path / f'a{seed}', seed=seed)
        fields = {'data.val_fraction': 0.0}
        make_run(tmp_path / f'b{seed}', seed=seed, fields=fields, validated=False)
    (found,), _ = compare([tmp_path])
    assert found.refusal.startswith('best: ')
    assert 'data.val_fraction' in found.refusal
    assert math.isnan(found.difference)


def test_results_that_are_missing_are_named(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    summary = files.read_json(run / 'summary.json')
    del summary['test']
    files.write_json(run / 'summary.json', summary)
    (found,), _ = compare([two_groups])
    assert found.refusal == f'test/accuracy: {run} has no such result'


def test_one_run_is_not_compared_with_several(two_groups):
    runs = [run for run in two_groups.glob('opt*') if 'sgd' not in run.name or '=0' in run.name]
    (found,), _ = compare(sorted(runs))
    assert found.refusal.startswith("seed: 'optim.name=sgd' has one run")


def test_single_runs_need_predictions_of_the_same_images(two_groups):
    runs = [two_groups / f'optim.name={name},seed=0' for name in ('sgd', 'adam')]
    path = runs[0] / 'artifacts/predictions.npz'
    with np.load(path) as arrays:
        changed = {**arrays, 'label': arrays['label'] + 1}
    np.savez(path, **changed)
    (found,), _ = compare(runs)
    assert 'other images or labels' in found.refusal
    path.unlink()
    (found,), _ = compare(runs)
    assert found.refusal.startswith('artifacts/predictions.npz: ')
    assert found.difference == pytest.approx(0.9 - 0.93)


def test_folds_are_paired_with_folds(tmp_path, make_run):
    for name, shift in (('sgd', 0.0), ('adam', 0.02)):
        for fold in range(3):
            run = make_run(
                tmp_path / f'{name}{fold}',
                fields={'optim.name': name, 'data.folds': 3, 'data.fold': fold},
                accuracy=0.8 + 0.05 * fold + shift,
            )
            environment = files.read_json(run / 'environment.json')
            environment['data']['sha256']['val'] = f'{fold}' * 64
            files.write_json(run / 'environment.json', environment)
    (found,), _ = compare([tmp_path], 'val/accuracy', by=['optim.name'])
    assert found.refusal == ''
    assert found.method == 'paired'
    assert found.difference == pytest.approx(0.02)
    assert [seed for seed, _, _ in found.pairs] == [f'data.fold={i}, seed=0' for i in range(3)]


def test_the_main_metric_is_that_of_the_test_if_there_is_one(two_groups):
    _, groups = compare([two_groups])
    assert comparisons.main_metric(groups) == 'test/accuracy'
    for run in two_groups.glob('opt*'):
        summary = files.read_json(run / 'summary.json')
        del summary['test']
        files.write_json(run / 'summary.json', summary)
    _, groups = compare([two_groups])
    assert comparisons.main_metric(groups) == 'val/accuracy'


def test_a_run_is_no_sample_twice(two_groups, tmp_path):
    path = tmp_path / 'results.jsonl'
    path.write_text(''.join(f'{line}\n' for line in compact.lines(records.read([two_groups]))))
    (found,), _ = compare([two_groups, path])
    assert found.refusal.startswith(f'seed: {two_groups}/optim.name=adam,seed=0 and ')
    assert 'git/commit' in found.refusal


def test_versions_of_the_code_can_make_groups(two_groups):
    for run in two_groups.glob('opt*'):
        commit = 'one' if 'seed=0' in run.name else 'two'
        change(run, 'environment.json', git={'commit': commit, 'dirty': False})
    groups = records.group(records.read([two_groups]), ['git/commit'])
    assert [(group.label, len(group.records)) for group in groups] == [
        ('git/commit=one', 2),
        ('git/commit=two', 4),
    ]
