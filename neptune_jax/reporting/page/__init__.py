"""The report of runs as one HTML file that loads nothing.

The charts are drawn in Python and can be read, and printed, without scripts. Scripts sort,
filter and copy tables, and answer to the pointer. Every text from a config or a file is escaped
(markup.py).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from neptune_jax import terminal
from neptune_jax.errors import one_line
from neptune_jax.reporting import records as reading
from neptune_jax.reporting.page import document
from neptune_jax.reporting.run_record import Record

__all__ = ['html', 'write', 'write_run']


def html(
    records: Sequence[Record],
    *,
    group_by: Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str | None = None,
) -> str:
    """Returns the page of some runs as a text. The arguments are those of `write`."""
    return document.html(records, group_by=group_by, baseline=baseline, metric=metric)


def write(
    records: Sequence[Record],
    path: str | os.PathLike[str],
    *,
    group_by: Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str | None = None,
) -> None:
    """Writes the page of some runs, atomically.

    Args:
        records: of runs, and of directories that hold none, as `records.read` returns them.
        path: of the HTML file.
        group_by: the config fields to group by; None: those that differ.
        baseline: the label of the group that the others are compared with, or a condition that it
            alone fulfils, such as 'optim.name=sgd'.
        metric: the result that is compared; None: the accuracy of the test, or of the validation
            where no run was tested.

    Raises:
        UserError: the baseline is no group, or no run has a field of `group_by`.
        OSError: the file cannot be written.
    """
    text = html(records, group_by=group_by, baseline=baseline, metric=metric)
    document.write(path, text)


def write_run(workdir: str | os.PathLike[str]) -> None:
    """Writes report.html of a run into its directory. If that fails it costs one warning line."""
    path = Path(workdir) / 'report.html'
    try:
        write(reading.read([workdir]), path)
    except Exception as error:  # results are saved already; no page is worth a failed run
        problem = f'{type(error).__name__}: {one_line(error, 200)}'
        terminal.line(f'warning: {path} was not written ({problem})')
