"""A report of runs as Markdown, LaTeX, CSV, JSON, compact records, or on the terminal."""

import contextlib
import csv
import dataclasses
import io
import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from neptune_jax import terminal
from neptune_jax.errors import UserError, one_line
from neptune_jax.reporting import compact, comparisons, escaping, run_tables, selection
from neptune_jax.reporting.comparisons import Comparison, Summary
from neptune_jax.reporting.grouping import differing, group
from neptune_jax.reporting.run_record import Record
from neptune_jax.reporting.run_tables import Table
from neptune_jax.runs import files

_RUNS_ON_TERMINAL, _NOTES_ON_TERMINAL = 100, 20
_WIDE = 120  # columns of a terminal that shows all columns of a table
_COLUMNS = 'status step epochs params train_seconds images_per_second best/step'.split()


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report tells.

    Attributes:
        runs: the records of runs, in their order.
        foreign: the records of what is no run.
        metric: the result that is compared, such as 'test/accuracy'.
        summaries: of each group.
        comparisons: of groups.
    """

    runs: tuple[Record, ...]
    foreign: tuple[Record, ...]
    metric: str
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]

    def tables(self) -> list[Table]:
        """Returns the tables of groups and comparisons, those that have rows."""
        tables = [
            run_tables.groups_table(self.summaries),
            run_tables.comparisons_table(self.comparisons),
        ]
        return [table for table in tables if table.rows]

    def notes(self) -> list[str]:
        """Returns a line for each comparison that is refused, and for all that has failed."""
        refused = [f'not compared: {each.refusal}' for each in self.comparisons if each.refusal]
        found = [*self.runs, *self.foreign]
        damaged = [f'{each.name}: {each.problem}' for each in found if each.problem]
        failed = [
            f'{each.name}: failed: {each.summary["error"]}'
            for each in self.runs
            if each.status == 'failed' and each.summary.get('error')
        ]
        return [*dict.fromkeys(refused), *failed, *damaged]


def create(records: Sequence[Record], options: selection.Options) -> Report:
    """Returns the Report of records.

    Raises:
        UserError: no run has a field that the options name, or no group is the baseline.
    """
    runs = [record for record in records if record.is_run]
    groups = group(runs, options.group_by)
    metric = options.metric or comparisons.main_metric(groups)
    selection.check_fields([metric] if options.metric else [], runs, f'--metric={metric}')
    baseline = selection.baseline(groups, options.baseline) if options.baseline else None
    return Report(
        runs=tuple(runs),
        foreign=tuple(record for record in records if not record.is_run),
        metric=metric,
        summaries=tuple(comparisons.summarize(each, metric) for each in groups),
        comparisons=tuple(comparisons.compare_all(groups, metric, baseline)),
    )


def show(report: Report) -> None:
    """Prints a report on the terminal."""
    shown = report.runs[:_RUNS_ON_TERMINAL]
    if shown:
        _print(run_tables.runs_table(shown, report.metric, time.time()))
    if len(report.runs) > len(shown):
        more = len(report.runs) - len(shown)
        terminal.line(f'{more:,} more runs; --where selects some, --format=csv has all')
    has_seeds = any(len(each.group.records) > 1 for each in report.summaries)
    if has_seeds or len(report.summaries) <= comparisons.MAX_PAIRED_GROUPS or report.comparisons:
        for table in report.tables():  # else each group is a line of the table above
            _print(table)
    if not report.comparisons and len(report.summaries) > 1:
        terminal.line(
            f'{len(report.summaries):,} groups, too many to compare each two; name one to '
            "compare the others with: --baseline='optim.name=sgd'"
        )
    notes = report.notes()
    for note in notes[:_NOTES_ON_TERMINAL]:
        terminal.line(f'note     {escaping.plain(note)}')
    if len(notes) > _NOTES_ON_TERMINAL:
        terminal.line(f'note     and {len(notes) - _NOTES_ON_TERMINAL:,} more, see --format=json')


def markdown(report: Report) -> str:
    """Returns a report as Markdown: groups, comparisons, runs, notes."""
    parts = []
    for table in (*report.tables(), run_tables.runs_table(report.runs, report.metric, time.time())):
        header = [escaping.markdown(column.name) for column in table.columns]
        rules = ['---:' if column.is_number else '---' for column in table.columns]
        rows = [[escaping.markdown(text) or ' ' for text in row] for row in table.rows]
        parts.append('\n'.join(f'| {" | ".join(row)} |' for row in (header, rules, *rows)))
    parts += [f'- {escaping.markdown(note)}' for note in report.notes()]
    return '\n\n'.join(parts) + '\n'


def latex(report: Report) -> str:
    """Returns the tables of groups and comparisons for LaTeX with the package booktabs.

    Details are left out: the values of single seeds, and all p-values but the adjusted ones.
    """
    parts = []
    for table in report.tables():
        chosen = [i for i, column in enumerate(table.columns) if not column.is_detail]
        columns = [table.columns[i] for i in chosen]
        sides = ''.join('r' if column.is_number else 'l' for column in columns)
        header = ' & '.join(escaping.latex(column.name) for column in columns)
        rows = [
            ' & '.join(
                _latex_number(row[i]) if table.columns[i].is_number else escaping.latex(row[i])
                for i in chosen
            )
            for row in table.rows
        ]
        body = ''.join(f'  {row} \\\\\n' for row in rows)
        parts.append(
            f'% {escaping.plain(table.title)}; \\usepackage{{booktabs}}\n'
            f'\\begin{{tabular}}{{{sides}}}\n  \\toprule\n  {header} \\\\\n  \\midrule\n'
            f'{body}  \\bottomrule\n\\end{{tabular}}\n'
        )
    parts += [f'% {escaping.plain(note)}\n' for note in report.notes()]
    return '\n'.join(parts)


def csv_text(report: Report) -> str:
    """Returns a row for each run, with the fields that differ, and all of its results."""
    fields = [*differing(report.runs), 'seed']
    metrics = list(dict.fromkeys(name for run in report.runs for name in run.metrics()))
    output = io.StringIO()
    writer = csv.writer(output, lineterminator='\n')
    names = [*fields, *_COLUMNS, *metrics]
    writer.writerow(map(escaping.csv, ['name', *names, 'problem']))
    for record in (*report.runs, *report.foreign):
        texts = [_csv_value(record.value(name)) for name in names]
        writer.writerow([escaping.csv(record.name), *texts, escaping.csv(record.problem)])
    return output.getvalue()


def json_text(report: Report) -> str:
    """Returns the whole report as JSON: runs without their rows, groups, comparisons, notes."""
    found = (*report.runs, *report.foreign)
    runs = [compact.to_json(record, rows=0, with_correct=False) for record in found]
    value = {
        'metric': report.metric,
        'differing': differing(report.runs),
        'runs': runs,
        'groups': [_group_json(each) for each in report.summaries],
        'comparisons': [_comparison_json(each) for each in report.comparisons],
        'notes': report.notes(),
    }
    return files.dumps(value, indent=2) + '\n'


def jsonl(report: Report) -> str:
    """Returns the compact records (compact.py)."""
    return ''.join(f'{line}\n' for line in compact.lines((*report.runs, *report.foreign)))


# By the name of the format; and by the ending of a file.
FORMATS = {'md': markdown, 'csv': csv_text, 'latex': latex, 'json': json_text, 'jsonl': jsonl}
ENDINGS = {
    '.html': 'html',
    '.md': 'md',
    '.csv': 'csv',
    '.tex': 'latex',
    '.json': 'json',
    '.jsonl': 'jsonl',
}


def choose(form: str, out: Path | None) -> str:
    """Returns the format of a report: 'text', 'html' or a key of FORMATS.

    Args:
        form: what the person asks for; 'text' if nothing.
        out: the file to write, if any; its ending tells the format.

    Raises:
        UserError: the two do not agree, or the ending tells nothing.
    """
    if out is None:
        return form
    by_ending = ENDINGS.get(out.suffix.lower())
    if by_ending is None and form == 'text':
        raise UserError(
            f'--out={out}: the ending tells no format; choose one of {", ".join(ENDINGS)}, or '
            'give --format too'
        )
    if by_ending and form not in ('text', by_ending):
        raise UserError(f'--out={out} is a file of another format than --format={form}')
    return by_ending or form


def write(text: str, out: Path | None) -> None:
    """Prints a text, or writes it into a file.

    Raises:
        UserError: the file cannot be written.
    """
    if out is None:
        sys.stdout.write(text)
        return
    with writing(out):
        files.replace(out, text)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Tells that a file is written when the context ends; raises UserError if it cannot be."""
    try:
        yield
    except OSError as error:
        raise UserError(f'--out={out} cannot be written: {one_line(error)}') from error
    terminal.line(f'wrote {out}')


def _print(table):
    shown = RichTable(title=table.title)
    is_narrow = terminal.console.width < _WIDE
    chosen = [i for i, column in enumerate(table.columns) if not (column.is_detail and is_narrow)]
    for i in chosen:
        column = table.columns[i]
        # A long name may break after its group: 'optim.' and 'learning_rate'.
        name = re.sub(r'(?<=[./])(?=\w)', '\n', escaping.plain(column.name))
        texts = (
            [row[i] for row in table.rows] if column.is_number or column.name == 'status' else []
        )
        # Neither a number nor a word of a header breaks.
        width = max(len(word) for text in (name, *texts) for word in text.split() or [''])
        justify: Any = 'right' if column.is_number else 'left'
        shown.add_column(name, justify=justify, min_width=width, overflow='fold')
    for row in table.rows:
        shown.add_row(*(escaping.plain(row[i]) for i in chosen))
    terminal.table(shown)


def _latex_number(text):
    if text == '-':
        return '--'
    return escaping.latex(text).replace('+', '$+$').replace('-', '$-$')


def _csv_value(value):
    if value is None:
        return ''
    if isinstance(value, list | dict):
        return escaping.csv(files.dumps(value))
    return escaping.csv(value) if isinstance(value, str) else value


def _known(values):
    """Returns a dict without what does not exist (NaN)."""
    return {
        key: value
        for key, value in values.items()
        if not (isinstance(value, float) and math.isnan(value))
    }


def _group_json(each):
    return {
        'label': each.group.label,
        'fields': dict(each.group.fields),
        'runs': [record.name for record in each.group.records],
        'values': {str(seed): value for seed, value in each.values.items()},
        'unfinished': each.unfinished,
        **_known(each.mean._asdict()),
        **_known({'images': each.count, 'binomial_error': each.binomial_error}),
        **_known({f'deviation_{key}': value for key, value in each.between._asdict().items()}),
    }


def _comparison_json(each):
    plain = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
    return {**_known(plain), 'a': each.a.label, 'b': each.b.label}
