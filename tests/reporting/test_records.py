"""Records of runs: read from directories and files of records, damaged or not."""

import json
import math
import os
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest

from neptune_jax.errors import UserError
from neptune_jax.reporting import compact, predictions, records
from neptune_jax.reporting.run_record import PLACES
from neptune_jax.runs import files, reader


def test_a_real_run_is_read_as_its_files_say(finished_run):
    (record,) = records.read([finished_run])
    assert record.name == record.workdir == str(finished_run)
    assert record.status == 'finished'
    assert record.problem == ''
    assert record.summary == reader.read_summary(finished_run)
    assert list(record.rows) == reader.read_rows(finished_run)
    nested = files.flatten(files.read_json(finished_run / 'config.json'), '.')
    assert nested.items() <= record.config.items()
    assert 'artifacts/predictions.npz' in record.artifacts
    assert record.value('test/accuracy') == record.summary['test']['accuracy']
    assert record.best_validation == record.summary['best']['accuracy']
    assert record.checkpoint == 'best'
    assert record.progress == 1
    assert record.updated == record.rows[-1]['time']


def test_a_record_survives_a_compact_file(finished_run, tmp_path):
    (before,) = records.read([finished_run])
    path = tmp_path / 'results.jsonl'
    path.write_text('\n'.join(compact.lines([before])) + '\n')
    (after,) = records.read([path])
    assert after.summary == before.summary
    assert after.status == before.status
    assert after.workdir == ''
    assert after.environment['packages'] == before.environment['packages']
    assert after.environment['data'] == before.environment['data']
    left_out = {field for field in before.config if field not in after.config}
    assert all(field.startswith(PLACES) for field in left_out)
    assert all(after.config[field] == before.config[field] for field in after.config)
    np.testing.assert_allclose(
        after.series('val/accuracy'), before.series('val/accuracy'), rtol=1e-5
    )
    assert len(after.series('val/accuracy')) == 2
    right, checksum = predictions.read_correct(before)
    assert predictions.read_correct(after)[1] == checksum
    np.testing.assert_array_equal(predictions.read_correct(after)[0], right)
    with np.load(finished_run / 'artifacts/predictions.npz') as arrays:
        np.testing.assert_array_equal(right, arrays['prediction'] == arrays['label'])
    # Written again it is the same.
    assert list(compact.lines([after])) == path.read_text().splitlines()
    assert records.from_json(json.loads(json.dumps(records.to_json(before)))) == after


def test_a_compact_file_says_nothing_of_the_machines_folders(two_groups, make_run):
    fields = {'data.path': '/home/person/photos', 'data.name': 'image_folder'}
    make_run(two_groups / 'photos', fields=fields)
    text = '\n'.join(compact.lines(records.read([os.path.relpath(two_groups)])))
    assert '/home/person' not in text
    assert 'a-person' not in text
    assert '"data.path": "photos"' in text
    assert '"python", "-m", "neptune_jax.main", "--config=c.py"]' in text


def test_a_command_names_no_folders(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    environment = files.read_json(run / 'environment.json')
    environment['command'] = [
        '/home/person/neptune_jax/main.py',
        '--config=/home/person/configs/cnn.py:large',
        '--config=/home/person/configs/cnn.py',
        '--config.data.path=/home/person/photos',
        '--config.optim.name=sgd',
        '--workdir',
        '/home/person/runs/x',
        '--config.data.dir=/home/person/data',
    ]
    files.write_json(run / 'environment.json', environment)
    found = records.to_json(*records.read([run]))['environment']['command']
    assert found == [
        *('python', '-m', 'neptune_jax.main'),
        '--config=configs/cnn.py:large',
        '--config=configs/cnn.py',
        '--config.data.path=photos',
        '--config.optim.name=sgd',
    ]


def test_what_runs_share_is_written_once(two_groups):
    found = records.read([two_groups])
    header, *others = map(json.loads, compact.lines(found))
    assert header['shared']['config']['train.batch_size'] == 128
    assert [set(value['config']) for value in others] == [{'seed', 'optim.name'}] * 6
    assert 'environment' not in others[0] or 'data' not in others[0]['environment']


def test_files_of_records_can_be_joined(two_groups, make_run, tmp_path):
    other = make_run(tmp_path / 'other', fields={'train.batch_size': 64})
    path, whole = tmp_path / 'joined.jsonl', records.read([two_groups, other])
    parts = [compact.lines(whole[:6]), compact.lines(whole[6:])]
    path.write_text(''.join(f'{line}\n' for part in parts for line in part))
    found = records.read([path])
    assert [each.config['train.batch_size'] for each in found] == [128] * 6 + [64]
    assert [each.value('test/accuracy') for each in found] == [
        each.value('test/accuracy') for each in whole
    ]


def test_a_run_is_found_once_below_any_of_the_paths(two_groups, tmp_path):
    (tmp_path / 'link').symlink_to(two_groups)
    (two_groups / 'loop').symlink_to(two_groups)
    run = two_groups / 'optim.name=sgd,seed=1'
    found = records.read([run, two_groups, tmp_path, tmp_path / 'link'])
    assert sum(record.is_run for record in found) == 6
    assert found[0].name == str(run)
    assert [record.value('trial') for record in found if record.is_run] == [None] * 6


def test_a_trial_knows_its_sweep_and_objective(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    trial = {'sweep': 'x', 'number': 3, 'overrides': {'seed': 1}}
    files.write_json(run / 'trial.json', trial)
    (record,) = records.read([run])
    assert record.trial == {**trial, 'objective': 'val/accuracy'}
    waiting = two_groups / 'waiting'
    waiting.mkdir()
    files.write_json(waiting / 'trial.json', trial)
    (record,) = records.read([waiting])
    assert record.status == 'waiting'
    assert 'has not begun' in record.problem
    assert not record.is_run


def spoil(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ('name', 'content', 'problem'),
    [
        ('config.json', b'{"seed": ', 'config.json cannot be read'),
        ('config.json', b'[1]', 'config.json cannot be read'),
        ('config.json', b'\xff\xfe', 'config.json cannot be read'),
        ('summary.json', b'', 'summary.json cannot be read'),
        ('summary.json', b'[' * 100_000, 'summary.json cannot be read'),
        ('environment.json', b'null', 'environment.json cannot be read'),
        ('metrics.jsonl', b'{"step": 1}\nnonsense\n[2]\n', 'no rows: 2'),
    ],
)
def test_damage_is_named_and_costs_nothing_else(two_groups, name, content, problem):
    spoil(two_groups / 'optim.name=sgd,seed=1', name, content)
    found = records.read([two_groups])
    assert len(found) == 6
    (damaged,) = [record for record in found if record.problem]
    assert problem in damaged.problem
    assert '\n' not in damaged.problem
    assert damaged.name.endswith('optim.name=sgd,seed=1')


def test_values_of_the_wrong_kind_hurt_nobody(two_groups):
    """Files that are JSON, of the wrong shape: reading, grouping and showing survive them."""
    from neptune_jax.reporting import report_formats, selection

    for seed, summary in enumerate(
        (
            {'status': 5, 'best': [], 'test': 'x', 'epochs': 'many'},
            {'status': 'running', 'best': {'step': None}, 'epochs': None, 'step': []},
            {'status': 'finished', 'test': {'accuracy': '0.9', 'count': 'x'}, 'val': {}},
        )
    ):
        folder = two_groups / f'optim.name=sgd,seed={seed}'
        files.write_json(folder / 'summary.json', summary)
        files.write_json(folder / 'environment.json', {'command': 'x', 'data': {'sha256': []}})
        spoil(folder, 'artifacts/predictions.npz', b'PK no zip file')
    found = records.read([two_groups])
    report = report_formats.create(found, selection.Options())
    for form in report_formats.FORMATS.values():
        assert form(report)
    report_formats.show(report)


def test_a_torn_last_line_is_no_damage(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    with (run / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 21, "train/lo')
    (record,) = records.read([run])
    assert record.problem == ''
    assert record.rows[-1]['step'] == 20


def test_foreign_directories_are_listed(two_groups):
    (two_groups / 'notes').mkdir()
    (two_groups / 'notes/todo.txt').write_text('x')
    (two_groups / '.hidden').mkdir()
    found = records.read([two_groups])
    assert len(found) == 7
    (foreign,) = [record for record in found if not record.is_run]
    assert foreign.name == str(two_groups / 'notes')
    assert 'there is no config.json' in foreign.problem


def test_a_path_that_does_not_exist_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match='there is no such'):
        records.read([tmp_path / 'nowhere'])


def test_what_is_of_something_else_is_listed(two_groups, tmp_path):
    (tmp_path / 'x.log').write_text('x')
    (two_groups / 'other').mkdir()
    (two_groups / 'other/config.json').write_text('{"architectures": ["Bert"], "hidden": 768}')
    found = records.read([tmp_path / 'x.log', two_groups])
    assert [record.problem for record in found if not record.is_run] == [
        'is neither a directory nor a .jsonl file',
        'holds no run: config.json is of something else',
    ]
    assert records.differing(found) == ['optim.name']


def test_lines_that_are_no_records_are_listed(two_groups, tmp_path):
    path = tmp_path / 'results.jsonl'
    lines = list(compact.lines(records.read([two_groups])))
    bad = ['{"name": 5}', 'nonsense', '[]', '{"name": "x", "config": [], "rows": 3}', '']
    newer = ['{"format": "neptune_jax records 99", "shared": {}}']
    path.write_text('\n'.join([*lines, *bad, *newer]))
    found = records.read([path])
    assert [record.is_run for record in found] == [True] * 6 + [False] * 5
    assert [record.name for record in found[6:]] == [f'{path}:{n}' for n in (8, 9, 10, 11, 13)]
    assert 'records 99' in found[-1].problem


def test_numbers_that_json_lacks_are_numbers(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    rows = [{'step': 1, 'val/loss': math.nan}, {'step': 2, 'val/loss': math.inf}]
    (run / 'metrics.jsonl').write_text(''.join(f'{files.dumps(row)}\n' for row in rows))
    config = files.read_json(run / 'config.json')
    config['optim']['clip_norm'], config['neptune']['name'] = 'Infinity', 'NaN'
    files.write_json(run / 'config.json', config)
    (record,) = records.read([run])
    assert record.config['optim.clip_norm'] == math.inf
    assert record.config['neptune.name'] == 'NaN'
    assert math.isnan(record.rows[0]['val/loss'])
    (again,) = [records.from_json(json.loads(files.dumps(records.to_json(record))))]
    assert again.config['optim.clip_norm'] == math.inf
    assert math.isnan(again.rows[0]['val/loss'])


def test_a_single_row_is_kept_by_a_compact_file(tmp_path, make_run):
    row = {'step': 3, 'time': 1.5, 'train/loss': 0.25, 'train/histogram': [1, 2]}
    (record,) = records.read([make_run(tmp_path / 'run', rows=[row])])
    assert records.from_json(records.to_json(record)).rows == (row,)


def test_a_field_newer_than_the_run_has_its_default(two_groups):
    run = two_groups / 'optim.name=sgd,seed=1'
    config = files.read_json(run / 'config.json')
    del config['optim']['nesterov']
    files.write_json(run / 'config.json', config)
    found = records.read([two_groups])
    assert records.differing(found) == ['optim.name']


def test_a_run_whose_process_is_dead_is_interrupted(tmp_path, make_run):
    run = make_run(tmp_path / 'run', status='running')
    process = subprocess.Popen(['sleep', '60'])
    lock = f'process {process.pid} on {socket.gethostname()}'
    (run / '.lock').write_text(lock)
    assert records.read([run])[0].status == 'running'
    process.kill()
    process.wait()
    assert records.read([run])[0].status == 'interrupted'
    (run / '.lock').write_text(lock + '-another')  # of another machine nothing is known
    assert records.read([run])[0].status == 'running'
    assert records.read([run])[0].progress == pytest.approx(0.5)


def test_reading_locks_and_writes_nothing(tmp_path, make_run):
    run = make_run(tmp_path / 'run', status='running')
    with files.locked(run / '.lock'):
        before = {path: path.stat().st_mtime_ns for path in run.rglob('*')}
        assert records.read([run])[0].status == 'running'
        assert {path: path.stat().st_mtime_ns for path in run.rglob('*')} == before


def long_run(step_count):
    rows = []
    for step in range(1, step_count + 1):
        rows.append({'step': step, 'time': float(step), 'train/loss': 1 / step})
        if step % 10 == 0:
            rows.append({'step': step, 'time': step + 0.5, 'val/accuracy': step / 1e6})
    return rows


def test_long_runs_are_thinned_with_their_ends_and_the_best(tmp_path, make_run):
    run = make_run(tmp_path / 'run', rows=long_run(30_000))
    summary = files.read_json(run / 'summary.json')
    summary['best']['step'] = 12_340
    files.write_json(run / 'summary.json', summary)
    (record,) = records.read([run])
    steps = [step for step, _ in record.series('train/loss')]
    assert 900 < len(steps) <= 1000
    assert steps[-1] == 30_000
    assert steps[0] <= 31
    assert max(np.diff(steps)) <= 31
    validated = [step for step, _ in record.series('val/accuracy')]
    assert 900 < len(validated) <= 1001
    assert 12_340 in validated
    assert [row['time'] for row in record.rows] == sorted(row['time'] for row in record.rows)
    small = records.to_json(record)
    assert len(files.dumps(small)) < 12_000
    kept = records.from_json(small)
    assert 12_340 in [step for step, _ in kept.series('val/accuracy')]
    assert kept.rows[-1]['step'] == 30_000
    assert len(kept.rows) <= 81


def test_a_thousand_runs_are_read_in_seconds(tmp_path, make_run):
    source = make_run(tmp_path / 'source', rows=long_run(100))
    for number in range(300):
        shutil.copytree(source, tmp_path / f'sweep/{number:04}')
    began = time.process_time()
    found = records.read([tmp_path / 'sweep'])
    groups = records.group(found)
    seconds = time.process_time() - began
    assert [len(group.records) for group in groups] == [300]
    assert seconds < 3  # 0.3 here; 1,000 runs have ten seconds for all
