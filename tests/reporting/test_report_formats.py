"""The report as Markdown, LaTeX, CSV, JSON, compact records, and on the terminal."""

import csv
import html
import io
import json
import re

import pytest

from neptune_jax.errors import UserError
from neptune_jax.reporting import escaping, records, report_formats, run_tables, selection
from neptune_jax.runs import files

HOSTILE = [
    '| a | b |',
    '<script>alert(1)</script>',
    '[x](http://evil.example)',
    'line\nbreak\r\n# title',
    '\x1b[31mred\x1b]0;title\x07',
    '\\input{/etc/passwd} $x$ & % # _ ^ ~ {',
    '=HYPERLINK("http://evil.example")',
    '-1+1',
    '@SUM(A1)',
    '"quoted", and commas',
    "it's `code` **bold** ![img](x)",
    'right\u202eleft',
    '名前 naïve ± λ',
    '&lt;b&gt;',
    'a -- b --- c',
    '[red]no markup[/red]',
]


def report(paths, **options):
    return report_formats.create(records.read(paths), selection.Options(**options))


def cells(markdown):
    """Returns the cells of the lines of a table, as the specification of GitHub splits them."""
    return [
        [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        for line in markdown.splitlines()
        if line.startswith('|')
    ]


def test_markdown_has_groups_comparisons_and_runs(two_groups):
    text = report_formats.markdown(report([two_groups]))
    groups, comparisons, runs = text.strip().split('\n\n')
    assert cells(groups)[0][:4] == ['optim.name', 'runs', 'test/accuracy', '95% interval']
    assert cells(groups)[3][:3] == ['sgd', '3', '0.9100 ± 0.0100']
    assert cells(groups)[3][4] == '0: 0.9000, 1: 0.9100, 2: 0.9200'
    assert cells(comparisons)[0][:3] == ['optim.name: A', 'optim.name: B', 'A - B']
    assert cells(comparisons)[2][:3] == ['adam', 'sgd', '+0.0283']
    assert len(cells(runs)) == 8
    assert len({len(row) for row in cells(runs)}) == 1


def test_csv_has_a_row_for_each_run_and_full_numbers(two_groups):
    (two_groups / 'empty').mkdir()
    rows = list(csv.DictReader(io.StringIO(report_formats.csv_text(report([two_groups])))))
    assert len(rows) == 7
    run = rows[0]
    assert run['optim.name'] == 'adam'
    assert run['seed'] == '0'
    summary = files.read_json(two_groups / 'optim.name=adam,seed=0/summary.json')
    assert float(run['test/loss']) == summary['test']['loss']
    assert run['best/step'] == '10'
    assert 'there is no config.json' in rows[-1]['problem']


def test_json_has_everything_by_name(two_groups):
    found = json.loads(report_formats.json_text(report([two_groups])))
    assert found['metric'] == 'test/accuracy'
    assert found['differing'] == ['optim.name']
    sgd = found['groups'][1]
    assert sgd['values'] == {'0': 0.9, '1': 0.91, '2': 0.92}
    assert sgd['mean'] == pytest.approx(0.91)
    assert found['comparisons'][0]['method'] == 'paired'
    assert len(found['runs']) == 6
    assert found['runs'][0]['summary']['params'] == 1234


def test_latex_is_a_table_of_booktabs(two_groups):
    text = report_formats.latex(report([two_groups]))
    assert text.count(r'\begin{tabular}') == text.count(r'\end{tabular}') == 2
    assert r'\toprule' in text
    assert r'  sgd & 3 & 0.9100 $\pm$ 0.0100 & ' in text
    assert r'  adam & sgd & $+$0.0283 & ' in text
    for line in text.splitlines():
        if line.endswith(r' \\'):
            sides = re.findall(r'\\begin\{tabular\}\{(\w+)\}', text[: text.index(line)])[-1]
            assert len(re.findall(r'(?<!\\)&', line)) == len(sides) - 1


@pytest.mark.parametrize('text', HOSTILE)
def test_no_text_is_markup(text):
    markdown = escaping.markdown(text)
    assert len(cells(f'| {markdown} |')[0]) == 1
    assert '\n' not in markdown
    assert not re.search(r'(?<!\\)[<>*`\[\]]', markdown)
    assert '://' not in markdown
    plain = html.unescape(re.sub(r'\\([!-/:-@\[-`{-~])', r'\1', markdown))
    if '\\' not in text:
        assert plain == escaping.plain(text)

    latex = escaping.latex(text)
    commands = re.findall(r'\\[a-zA-Z]+|\\.', latex)
    harmless = r'\\(text\w+|pm|[{}$&#%_])'
    assert all(re.fullmatch(harmless, command) for command in commands)
    bare = re.sub(r'\\[{}$&#%_]|\\text\w+\{\}|\$\\pm\$|\{[\[\]*]\}|\{\}', '', latex)
    assert not re.search(r'[\\{}$&#%_^~<>|"\'`\[\]*\n]', bare)
    assert '--' not in latex

    assert not escaping.csv(text).startswith(('=', '+', '-', '@', '\t', '\r'))
    shown = escaping.plain(text)
    assert shown.isprintable()
    assert not set(shown) & set('\x1b\x07\n\r\u202e')


def test_a_report_of_hostile_names_is_whole(tmp_path, make_run, capsys):
    for number, text in enumerate(HOSTILE):
        name = text.replace('/', '_')
        run = make_run(tmp_path / 'sweep' / f'{name}{number}', seed=0)
        config = files.read_json(run / 'config.json')
        config['optim'][f'bad|{text}'] = text
        config['optim']['name'] = text
        config['model']['name'] = {'x': text}
        files.write_json(run / 'config.json', config)
        files.write_json(run / 'summary.json', {'status': text, 'test': {text: 1, 'accuracy': 0.5}})
    (tmp_path / 'sweep' / b'\xff.\n'.decode('utf-8', 'surrogateescape')).mkdir()
    found = report([tmp_path / 'sweep'], group_by=('optim.name',))
    assert len(found.runs) == len(HOSTILE)

    rows = cells(report_formats.markdown(found))
    assert all(len(row) > 3 for row in rows)
    text = report_formats.latex(found)
    assert text.isascii() or 'naïve' in text
    assert '\x1b' not in text
    parsed = list(csv.reader(io.StringIO(report_formats.csv_text(found))))
    assert len(parsed) == len(HOSTILE) + 2
    assert not any(cell.startswith(('=', '@', '-1+1')) for row in parsed for cell in row)
    assert len({len(row) for row in parsed}) == 1
    assert json.loads(report_formats.json_text(found))['groups']
    lines = report_formats.jsonl(found).splitlines()
    assert len(lines) == len(HOSTILE) + 2
    (tmp_path / 'x.jsonl').write_text('\n'.join(lines))
    again = records.read([tmp_path / 'x.jsonl'])
    assert [record.config['optim.name'] for record in again if record.is_run] == [
        record.config['optim.name'] for record in found.runs
    ]
    report_formats.show(found)
    assert '\x1b' not in capsys.readouterr().out


def test_the_terminal_shows_runs_and_groups(two_groups, capsys, monkeypatch):
    monkeypatch.setattr('neptune_jax.terminal.console.width', 100)
    change = files.read_json(two_groups / 'optim.name=sgd,seed=2/summary.json')
    del change['test']
    change |= {'status': 'running', 'epochs': 2.5}
    files.write_json(two_groups / 'optim.name=sgd,seed=2/summary.json', change)
    report_formats.show(report([two_groups]))
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if 'optim.name=sgd,seed=2' in line)
    assert 'running' in row
    assert '25%' in row
    assert '0.9100' in row  # of the best checkpoint so far
    assert '2 of 3' in out
    assert "not compared: status: 1 of 3 runs of 'optim.name=sgd'" in out
    failed = {'status': 'failed', 'error': 'loss is NaN at step 3\nmore'}
    files.write_json(two_groups / 'optim.name=sgd,seed=2/summary.json', failed)
    report_formats.show(report([two_groups]))
    assert 'seed=2: failed: loss is NaN at step 3\\nmore' in capsys.readouterr().out


def test_a_hundred_runs_are_enough_for_a_terminal(tmp_path, make_run, capsys):
    import shutil

    source = make_run(tmp_path / 'source')
    for number in range(120):
        shutil.copytree(source, tmp_path / f'sweep/{number:03}')
    report_formats.show(report([tmp_path / 'sweep']))
    out = capsys.readouterr().out
    assert '20 more runs' in out
    assert ' 099 ' in out
    assert ' 100 ' not in out


def test_the_ending_of_a_file_tells_the_format(tmp_path):
    assert report_formats.choose('text', None) == 'text'
    assert report_formats.choose('csv', None) == 'csv'
    assert report_formats.choose('text', tmp_path / 'a.tex') == 'latex'
    assert report_formats.choose('text', tmp_path / 'a.HTML') == 'html'
    assert report_formats.choose('md', tmp_path / 'a.txt') == 'md'
    with pytest.raises(UserError, match='the ending tells no format'):
        report_formats.choose('text', tmp_path / 'a.txt')
    with pytest.raises(UserError, match='of another format'):
        report_formats.choose('csv', tmp_path / 'a.md')
    with pytest.raises(UserError, match=r'--out=.*nowhere/a.md cannot be written'):
        report_formats.write('x', tmp_path / 'nowhere/a.md')


def test_numbers_are_short():
    assert run_tables.number(0.91234) == '0.9123'
    assert run_tables.number(2889.74) == '2,889.7'
    assert run_tables.number(None) == run_tables.number(float('nan')) == '-'
    assert run_tables.p_value(0.04) == '0.04'
    assert run_tables.p_value(0.4) == '0.40'
    assert run_tables.p_value(1e-9) == '<0.0001'
    assert run_tables.percent(0.999) == '99%'
    assert [run_tables.age(each) for each in (-3, 59, 61, 7201, 200_000)] == [
        '0 s',
        '59 s',
        '1 min',
        '2 h',
        '2 d',
    ]


def test_runs_without_a_metric_are_named(two_groups):
    with pytest.raises(UserError, match=r'--metric=test/acuracy.*did you mean test/accuracy'):
        report([two_groups], metric='test/acuracy')
    assert report([two_groups], metric='val/loss').metric == 'val/loss'
