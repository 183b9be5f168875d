"""The page of runs: what it says, that it needs nothing, its size and its time."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
import shutil
import statistics
import time

import numpy as np
import pytest
import scipy.stats

from neptune_jax.errors import UserError
from neptune_jax.reporting import page, records
from neptune_jax.reporting.run_record import Record
from neptune_jax.runs import reader

VOID = {'br', 'img', 'input', 'link', 'meta', 'wbr'}
OPTIONAL = {'td', 'th', 'tr'}  # whose end tags HTML lets one leave out


class Parsed(html.parser.HTMLParser):
    """The elements of a page: texts by section, tables by id, attributes; unclosed ones."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tables, self.elements = [], {}, {}, []
        self.section, self.table = 'head', None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)
        if tag == 'section':
            self.section = dict(attributes)['id']
        if tag == 'table':
            self.table = self.tables.setdefault(dict(attributes).get('id'), [])
        if self.table is not None and tag == 'tr':
            self.table.append([])
        if self.table is not None and tag in ('td', 'th'):
            self.table[-1].append('')

    def handle_endtag(self, tag):
        if tag in OPTIONAL:
            return
        assert self.open.pop() == tag
        if tag == 'table':
            self.table = None

    def handle_data(self, data):
        if self.table and 'title' not in self.open:
            self.table[-1][-1] += data
        self.texts[self.section] = self.texts.get(self.section, '') + data


def drawn(runs, **options):
    text = page.html(runs, **options)
    parsed = Parsed(text)
    assert parsed.open == []
    return text, parsed


def size_without_pictures(text):
    return len(re.sub(r'data:image/[^"]*', '', text).encode())


def test_two_groups_with_every_seed_and_their_comparison(two_groups):
    _, parsed = drawn(records.read([two_groups]))
    head, *rows = parsed.tables['table-groups']
    assert head[:5] == ['Group', 'test/accuracy', 'deviation', 'n', '95% interval']
    values = {'adam': (0.93, 0.935, 0.95), 'sgd': (0.90, 0.91, 0.92)}
    assert [row[0] for row in rows] == [f'optim.name={name}' for name in values]  # the best first
    for row, own in zip(rows, values.values(), strict=True):
        low, high = scipy.stats.t.interval(0.95, 2, np.mean(own), scipy.stats.sem(own))
        assert row[1:5] == [
            f'{np.mean(own):.4f}',
            f'{statistics.stdev(own):.4f}',
            '3',
            f'{low:.4f} to {high:.4f}',
        ]
    exact = {own['data-v'] for _, own in parsed.elements if 'data-v' in own}
    assert f'{np.mean(values["adam"]):.6g}' in exact  # what CSV has, and what rows are sorted by
    strips = [own for tag, own in parsed.elements if tag == 'svg' and own['class'] == 'strip']
    assert [own['aria-label'] for own in strips[:2]] == [
        f'optim.name={name}: ' + ', '.join(f'seed {i}: {value:.4f}' for i, value in enumerate(own))
        for name, own in values.items()
    ]
    intervals = [own for _, own in parsed.elements if own.get('class') == 'interval']
    assert [float(own['width']) > 20 for own in intervals] == [True, True]
    assert len(parsed.tables['table-runs']) == 7

    head, row = parsed.tables['table-comparisons']
    found = dict(zip(head, row, strict=True))
    p_value = scipy.stats.ttest_rel(values['adam'], values['sgd']).pvalue
    assert (found['A'], found['B']) == ('optim.name=adam', 'optim.name=sgd')
    assert found['p'] == f'{p_value:.4f}'
    assert found['test/accuracy, A − B'] == f'+{np.mean(values["adam"]) - 0.91:.4f}'
    assert found['P(A better)'] == '1.00'
    assert parsed.tables[None][1:] == [
        ['optim.name', 'adam (3), sgd (3)'],
        ['seed', '0 (2), 1 (2), 2 (2)'],
    ]


def test_the_best_group_is_the_one_with_the_smallest_loss(two_groups):
    _, parsed = drawn(records.read([two_groups]), metric='test/loss')
    assert [row[0] for row in parsed.tables['table-groups'][1:]] == [
        'optim.name=adam',
        'optim.name=sgd',
    ]


def test_a_baseline_is_what_the_others_are_compared_with(two_groups):
    _, parsed = drawn(records.read([two_groups]), baseline='optim.name=adam')
    assert parsed.tables['table-comparisons'][1][:2] == ['optim.name=sgd', 'optim.name=adam']
    with pytest.raises(UserError, match='--baseline'):
        page.html(records.read([two_groups]), baseline='optim.name=lion')


def test_what_cannot_be_compared_is_said(two_groups, make_run):
    make_run(two_groups / 'more', fields={'optim.name': 'adamw'}, images='dd')
    running = make_run(two_groups / 'running', fields={'optim.name': 'lion'}, status='running')
    (running / 'environment.json').unlink()
    failed = make_run(two_groups / 'failed', fields={'optim.name': 'lamb'}, status='failed')
    summary = records.files.read_json(failed / 'summary.json')
    records.files.write_json(failed / 'summary.json', {**summary, 'error': 'loss is <NaN>'})
    (two_groups / 'foreign').mkdir()
    (two_groups / 'foreign/notes.txt').write_text('none')
    (two_groups / 'damaged').mkdir()
    (two_groups / 'damaged/config.json').write_text('{')
    _, parsed = drawn(records.read([two_groups]))
    said = parsed.texts['comparisons']
    assert 'data.sha256.test' in said
    assert 'are not finished (running)' in said
    assert 'failed: loss is <NaN>' in parsed.texts['overview']
    assert 'holds no run' in parsed.texts['overview']
    assert 'config.json cannot be read' in parsed.texts['overview']
    assert 'Python3.12.1' in parsed.texts['overview']  # shared by all that know
    assert 'Python' not in [row[0] for row in parsed.tables[None]]  # what differs


def test_a_finished_run_has_all_its_parts(finished_run):
    text, parsed = drawn(records.read([finished_run]))
    summary = reader.read_summary(finished_run)
    metrics = {row[0]: row[1:] for row in parsed.tables['table-metrics']}
    assert metrics['metric'] == ['test', 'validation']
    assert ('table', {'id': 'table-metrics', 'class': 'n2 n3'}) in parsed.elements
    assert metrics['accuracy'] == [f'{summary[split]["accuracy"]:.4f}' for split in ('test', 'val')]
    confusion = np.loadtxt(
        finished_run / 'artifacts/confusion_matrix.csv',
        delimiter=',',
        skiprows=1,
        usecols=range(1, 11),
        dtype=int,
    )
    (_, *classes), *rows = parsed.tables[None]
    assert [row[0] for row in rows] == classes
    cells = [[int(cell.replace(',', '') or 0) for cell in row[1:]] for row in rows]
    np.testing.assert_array_equal(cells, confusion)
    report = (finished_run / 'artifacts/classification_report.csv').read_text().splitlines()[1:]
    for line, row in zip(report, parsed.tables['table-classes'][1:], strict=True):
        name, precision, recall, f1, support = line.split(',')
        ratios = [f'{float(value):.4f}' for value in (precision, recall, f1)]
        assert row == [name, f'{int(support):,}', *ratios]
    assert f'ECE {summary["test"]["ece"]:.4f}' in parsed.texts['test']
    pictures = [own for tag, own in parsed.elements if tag == 'img']
    assert len(pictures) == 25
    assert parsed.texts['mistakes'].count('%') == 25
    curves = [own['data-curve'] for tag, own in parsed.elements if 'data-curve' in own]
    assert {'train/loss', 'val/accuracy', 'train/learning_rate'} <= set(curves)
    assert size_without_pictures(text) < 300_000


def test_worst_mistakes_are_those_of_the_predictions(finished_run):
    _, parsed = drawn(records.read([finished_run]))
    with np.load(finished_run / 'artifacts/predictions.npz') as arrays:
        wrong = np.flatnonzero(arrays['prediction'] != arrays['label'])
        worst = wrong[np.argsort(-arrays['loss'][wrong], kind='stable')][:25]
        expected = [f'{each:,}' for each in arrays['index'][worst].tolist()]
    assert re.findall(r'#([\d,]+)', parsed.texts['mistakes']) == expected


def write_tested(make_run, folder, name, label, prediction):
    """A run with predictions of three classes."""
    run = make_run(
        folder / name, fields={'optim.name': name}, accuracy=np.mean(label == prediction)
    )
    environment = records.files.read_json(run / 'environment.json')
    environment['data']['classes'] = ['cat', 'dog', 'owl']
    records.files.write_json(run / 'environment.json', environment)
    size = len(label)
    arrays = {'index': np.arange(size), 'label': label, 'prediction': prediction}
    confidence = np.full(size, 0.75, np.float32)
    np.savez(run / 'artifacts/predictions.npz', **arrays, confidence=confidence, loss=confidence)
    return np.array(
        [[np.sum((label == i) & (prediction == j)) for j in range(3)] for i in range(3)]
    )


def test_two_tests_are_shown_with_their_difference(make_run, tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=200)
    good, bad = (np.where(rng.uniform(size=200) < p, label, (label + 1) % 3) for p in (0.9, 0.5))
    first = write_tested(make_run, tmp_path, 'adam', label, good)
    second = write_tested(make_run, tmp_path, 'sgd', label, bad)
    _, parsed = drawn(records.read([tmp_path]))
    matrices = parsed.tables[None][1:]  # behind the table of differences
    numbers = [
        [int(c.replace('−', '-') or 0) for c in row[1:]]
        for row in matrices
        if row[0] in 'cat dog owl'.split()
    ]
    np.testing.assert_array_equal(numbers, np.concatenate([first, first - second]))
    moved = np.abs(first - second).sum() // 2
    assert f'{moved} images differ' in parsed.texts['test']
    right = [np.diag(each) / each.sum(axis=1) for each in (first, second)]
    rows = parsed.tables['table-classes'][1:]
    assert [row[2:4] for row in rows] == [
        [f'{a:.4f}', f'{b:.4f}'] for a, b in zip(*right, strict=True)
    ]


def test_tests_of_other_images_are_not_set_side_by_side(make_run, tmp_path):
    label = np.arange(200) % 3
    write_tested(make_run, tmp_path, 'adam', label, label)
    write_tested(make_run, tmp_path, 'sgd', label[::-1], label)
    _, parsed = drawn(records.read([tmp_path]))
    assert 'A − B' not in parsed.texts['test']
    assert '\nA' not in parsed.texts['mistakes']


@pytest.mark.parametrize('damage', ['torn', 'other classes', 'none', 'no picture'])
def test_results_that_cannot_be_read_leave_their_part_out(finished_run, tmp_path, damage):
    run = tmp_path / 'run'
    shutil.copytree(finished_run, run, ignore=shutil.ignore_patterns('checkpoints'))
    predictions = run / 'artifacts/predictions.npz'
    if damage == 'torn':
        predictions.write_bytes(predictions.read_bytes()[:-100])
    elif damage == 'other classes':
        environment = json.loads((run / 'environment.json').read_text())
        environment['data']['classes'] = ['one']
        (run / 'environment.json').write_text(json.dumps(environment))
    elif damage == 'none':
        predictions.unlink()
    else:
        (run / 'artifacts/worst_mistakes.png').write_bytes(b'\x89PNG\r\n\x1a\nno')
    _, parsed = drawn(records.read([run]))
    assert ('mistakes' in parsed.texts) == (damage == 'no picture')
    assert 'img' not in {tag for tag, _ in parsed.elements}
    assert 'curves' in parsed.texts


def test_compact_records_are_drawn_too(two_groups, tmp_path):
    lines = '\n'.join(records.compact.lines(records.read([two_groups])))
    (tmp_path / 'results.jsonl').write_text(lines)
    _, parsed = drawn(records.read([tmp_path / 'results.jsonl']))
    assert [row[0] for row in parsed.tables['table-groups'][1:]] == [
        'optim.name=adam',
        'optim.name=sgd',
    ]


def test_a_run_that_has_just_begun_and_nothing_at_all(make_run, tmp_path):
    run = make_run(tmp_path / 'run', status='running', rows=[])
    (run / 'summary.json').unlink()
    _, parsed = drawn(records.read([run]))
    assert 'results' not in parsed.texts
    _, parsed = drawn([Record('elsewhere', problem='holds no run')])
    assert 'elsewhere: holds no run' in parsed.texts['runs']


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(finished_run):
    text, parsed = drawn(records.read([finished_run]))
    (policy,) = [own['content'] for _, own in parsed.elements if own.get('http-equiv') is not None]
    rules = dict(each.split(' ', 1) for each in policy.split('; '))
    assert rules['default-src'] == "'none'"
    assert rules['img-src'] == 'data:'
    for tag, rule in (('style', 'style-src'), ('script', 'script-src')):
        content = re.findall(rf'<{tag}>(.*?)</{tag}>', text, re.DOTALL)
        (digest,) = [hashlib.sha256(each.encode()).digest() for each in content]
        assert rules[rule] == f"'sha256-{base64.b64encode(digest).decode()}'"
    for _, own in parsed.elements:
        assert not {'style', 'onload', 'onclick', 'onerror'} & set(own)
        for name in ('src', 'href'):
            assert own.get(name, '#').startswith(('#', 'data:'))


def test_the_same_runs_give_the_same_bytes(two_groups):
    found = records.read([two_groups])
    assert page.html(found) == page.html(found)


def test_the_commands_are_those_that_one_types(two_groups, finished_run):
    _, parsed = drawn(records.read([two_groups]))
    assert 'python -m neptune_jax.main --config=c.py' in parsed.texts['environment']
    arguments = {row[0]: row[1] for row in parsed.tables['table-commands'][1:]}
    assert arguments['optim.name=sgd,seed=1'] == f'--workdir={two_groups}/optim.name=sgd,seed=1'


def many(count, fields, seeds=1):
    """Records of a search in memory: the accuracy depends on the learning rate alone."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        if number % seeds == 0:
            rate = 10 ** rng.uniform(-4, 0)
            others = {f'model.{letter * 2}': rng.uniform() for letter in 'abcdef'[:fields]}
        accuracy = 0.9 - 0.02 * (np.log10(rate) + 2) ** 2 + rng.normal(0, 0.001)
        config = {
            **others,
            'seed': number % seeds,
            'optim.learning_rate': rate,
            'model.activation': 'relu',
        }
        summary = {'step': 100, 'epochs': 10.0, 'images_per_second': 1000.5, 'train_seconds': 9.5}
        summary |= {'test': {'accuracy': accuracy, 'count': 1000}, 'best': {'accuracy': accuracy}}
        summary['val'] = {'accuracy': accuracy, 'count': 1000}
        rows = []
        for step in range(1, 101):
            values = {'train/loss': 1 / step, 'train/accuracy': 1 - 1 / step}
            rows.append({'step': step, 'time': number + step / 100, **values})
        found.append(
            Record(
                name=f'runs/sweep/{number:04d}',
                status='finished',
                config=config,
                summary=summary,
                environment={'command': ['/x/neptune_jax/main.py', f'--config.a={number}']},
                rows=tuple(rows),
                trial={'number': number},
            )
        )
    return found


def test_speed_is_a_dot_for_each_run_and_the_head_tells_the_last_change():
    found = many(3, fields=0)
    for place, (value, moment) in enumerate([(100.0, 1.7e9), (400.0, 1.8e9), (0.0, 1.6e9)]):
        summary = {**found[place].summary, 'images_per_second': value}
        found[place] = dataclasses.replace(found[place], summary=summary, updated=moment)
    text, parsed = drawn(found)
    throughput = text[text.index('Throughput') : text.index('Training time')]
    dots = sorted(float(x) for x in re.findall(r'<circle cx="([\d.]+)"', throughput))
    assert len(dots) == 2  # none is known of the third run
    assert (dots[1] - 150) / (dots[0] - 150) == pytest.approx(4, rel=0.01)  # the axis starts at 0
    assert '3 runs; the last change was on 2027-01-15 at 08:00 UTC' in parsed.texts['head']


@pytest.mark.parametrize(('count', 'seeds', 'seconds'), [(20, 1, 1), (1000, 1, 8), (1000, 5, 8)])
def test_many_runs_take_little_time_and_room(count, seeds, seconds):
    found = many(count, fields=6, seeds=seeds)
    began = time.process_time()
    text, parsed = drawn(found)
    assert time.process_time() - began < seconds
    assert size_without_pictures(text) < 300_000
    assert 'optim.learning_rate' in parsed.texts['search']


def test_a_search_finds_what_matters_and_the_best_so_far():
    found = many(60, fields=2)
    _, parsed = drawn(found)
    values = [record.value('val/accuracy') for record in found]
    said = parsed.texts['search']
    best = f'{int(np.argmax(values)):04d}'
    assert f'the best is {max(values):.4f}, of run {best}' in said
    bars = said[said.index('(Kelley, 1935)') :]
    shares = re.findall(r'(optim\.learning_rate|model\.[a-z]{2})([\d.e-]+)', bars)[:3]
    assert shares[0][0] == 'optim.learning_rate'
    assert float(shares[0][1]) > 0.6
    assert all(float(share) < 0.2 for _, share in shares[1:])
    data = [own for tag, own in parsed.elements if 'data-trial' in own]
    assert len(data) == 60


def test_the_best_of_a_search_is_the_best_of_the_validation():
    found = many(20, fields=1)
    lucky = found[7]  # on the test
    summary = {**lucky.summary, 'test': {'accuracy': 0.999, 'count': 1000}}
    found[7] = dataclasses.replace(lucky, summary=summary)
    _, parsed = drawn(found)
    best = max(found, key=lambda record: record.value('val/accuracy'))
    assert parsed.tables['table-runs'][1][0] == best.name.rpartition('/')[2]
    assert f'val/accuracy, best run: {best.name[-4:]}' in parsed.texts['overview']


def test_a_diverged_run_does_not_push_the_others_together():
    found = many(20, fields=1)
    summary = {**found[3].summary, 'val': {'accuracy': 0.001}}
    found[3] = dataclasses.replace(found[3], summary=summary)
    text, parsed = drawn(found)
    assert ' 1 worse than 0.' in parsed.texts['search']
    picture = text[text.index('id="parallel"') :]
    ends = [float(y) for y in re.findall(r'L1140 (-?[\d.]+)" ', picture)]
    assert len(ends) == 20
    assert ends[0] == max(ends) <= 280  # the worst is drawn first, at the end of the axis
    assert np.ptp(ends[1:]) > 100


def test_an_objective_that_is_not_finite_is_no_trial():
    found = many(20, fields=1)
    for place, value in ((3, float('nan')), (4, float('inf'))):
        summary = {**found[place].summary, 'val': {'accuracy': value}}
        found[place] = dataclasses.replace(found[place], summary=summary)
    _, parsed = drawn(found)
    assert '18 runs have the objective' in parsed.texts['search']


def test_a_page_that_fails_is_a_warning(make_run, tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / 'run')
    page.write_run(run)
    assert '<title>run</title>' in (run / 'report.html').read_text()
    monkeypatch.setattr(page, 'html', lambda *_, **__: 1 / 0)
    page.write_run(run)
    assert 'report.html was not written (ZeroDivisionError' in capsys.readouterr().out


ODD = (None, 'text', -1, 1e300, float('nan'), [], [1, 'a'], {}, {'a': {'b': 1}}, True)


def test_no_edited_file_costs_the_page(finished_run):
    """Each value of the JSON files, in turn, becomes something else."""
    (record,) = records.read([finished_run])
    rng = np.random.default_rng(0)
    light = dataclasses.replace(record, workdir='', artifacts=())
    other = dataclasses.replace(light, name='runs/other')
    changed = 0
    for part in ('summary', 'environment', 'config', 'trial'):
        for path in paths(getattr(record, part)):
            value = json.loads(json.dumps(getattr(record, part)))
            spoil(value, path, ODD[rng.integers(len(ODD))])
            run = record if path[0] == 'data' else light  # the test in detail takes its time
            page.html([dataclasses.replace(run, **{part: value}), other])
            changed += 1
    for key in ('step', 'time', 'train/loss'):
        for odd in ODD:
            rows = [{**row, key: odd} if i % 2 else row for i, row in enumerate(record.rows)]
            page.html([dataclasses.replace(light, rows=tuple(rows)), other])
    assert changed > 100


def paths(value, start=()):
    """Yields the path of each value in nested dicts, and of the dicts."""
    for key, item in value.items():
        yield (*start, key)
        if isinstance(item, dict):
            yield from paths(item, (*start, key))


def spoil(value, path, odd):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = odd
