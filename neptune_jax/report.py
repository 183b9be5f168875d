"""Reports runs: a table on the terminal, a page, or tables for a paper.

    python -m neptune_jax.report runs/cnn_sweep
    python -m neptune_jax.report runs/cnn_sweep --out=report.html
    python -m neptune_jax.report runs/* --where='optim.learning_rate<0.1 and status==finished'
    python -m neptune_jax.report results.jsonl runs/new --format=latex --baseline='optim.name=sgd'

Runs that differ in nothing but the seed are a group. --format=jsonl writes compact records, which
fit into a repository and are read like directories.
"""

from pathlib import Path

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.errors import UserError
from neptune_jax.runs import files

FORMATS = ('text', 'md', 'csv', 'latex', 'json', 'jsonl')

OUT = flags.DEFINE_string('out', '', 'The file to write: .html, .md, .csv, .tex, .json or .jsonl.')
FORMAT = flags.DEFINE_enum('format', 'text', FORMATS, f'What is printed: {", ".join(FORMATS)}.')
WHERE = flags.DEFINE_string('where', '', "Which runs: 'optim.name==sgd and test/accuracy>0.9'.")
SORT = flags.DEFINE_string('sort', '', "Their order: fields and results; '-test/accuracy'.")
GROUP_BY = flags.DEFINE_list('group_by', [], 'The fields that make groups; else all that differ.')
BASELINE = flags.DEFINE_string('baseline', '', "The group to compare with: 'optim.name=sgd'.")
METRIC = flags.DEFINE_string('metric', '', 'The result to compare; test/accuracy where there is.')


def main(args: list[str]) -> None:
    """Reads runs and prints or writes their report."""
    if not args:
        raise UserError('give run directories or .jsonl files: python -m neptune_jax.report runs')
    out = Path(files.expand_user(OUT.value, '--out')) if OUT.value else None
    from neptune_jax.reporting import records, selection
    from neptune_jax.reporting import report_formats as formats

    form = formats.choose(FORMAT.value, out)
    options = selection.Options(tuple(GROUP_BY.value) or None, BASELINE.value, METRIC.value)
    with exits.interruptible():
        found = records.read([files.expand_user(path, 'RUN_DIR') for path in args])
        selected = selection.select(found, WHERE.value, SORT.value)
        if out and form == 'html':
            from neptune_jax.reporting import page

            with formats.writing(out):
                page.write(selected, out, **options.given())
        elif form == 'text':
            formats.show(formats.create(selected, options))
        else:
            text = formats.FORMATS[form](formats.create(selected, options))
            formats.write(text, out)


if __name__ == '__main__':
    cli.run(main, positional='RUN_DIR|SWEEP_DIR|RECORDS.jsonl ...')
