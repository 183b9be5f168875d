"""View: which runs a page shows, in which order and in which colours."""

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from typing import Any

from neptune_jax.reporting import comparisons, selection
from neptune_jax.reporting.grouping import Group, differing, group
from neptune_jax.reporting.page import sound
from neptune_jax.reporting.page.charts import COLORS
from neptune_jax.reporting.page.markup import Markup, name, tag
from neptune_jax.reporting.run_record import Record

OBJECTIVE = 'val/accuracy'  # of runs that no search has started
_MIN_TRIALS = 8  # different configurations that make a search


@dataclasses.dataclass(frozen=True)
class View:
    """The runs of a page.

    Attributes:
        folder: that the names of all runs start with, with its slash; or ''.
        runs: the records of runs, in the order of the groups, then of the seeds.
        foreign: directories and lines that hold no run.
        groups: the best by `ranking` first; those without a value last.
        fields: of the config, that differ between the runs.
        metric: the result that is compared, such as 'test/accuracy'.
        ranking: the result that orders groups. Of a search that is the objective: who picks one of
            many configurations by the test has no test left.
        objective: what a search optimises.
        baseline: the group that others are compared with.
    """

    folder: str
    runs: tuple[Record, ...]
    foreign: tuple[Record, ...]
    groups: tuple[Group, ...]
    fields: tuple[str, ...]
    metric: str
    ranking: str
    objective: str
    baseline: Group | None

    @property
    def is_single(self) -> bool:
        """Whether there is one run."""
        return len(self.runs) == 1

    @property
    def is_search(self) -> bool:
        """Whether so many configurations were tried that one looks for what matters."""
        return len(self.groups) >= _MIN_TRIALS and bool(self.fields)

    @property
    def has_seeds(self) -> bool:
        """Whether groups have several runs; a search may draw a configuration twice by chance."""
        return len(self.runs) > 1.1 * len(self.groups)

    def color(self, place: int) -> int | None:
        """Returns the colour of a group by its place: the first ones have one, others are grey."""
        return place if place < COLORS else None

    def short_name(self, record: Record) -> str:
        """Returns the name of a run without the folder that all runs share."""
        return record.name[len(self.folder) :] or record.name

    def label(self, place: int) -> str:
        """Returns what a chart calls a group: in a search without seeds, the name of its run."""
        each = self.groups[place]
        if self.is_search and not self.has_seeds:
            return self.short_name(each.records[0])
        return each.label

    @property
    def title(self) -> str:
        """The name of what is reported: of the run, or of the folder that the runs share."""
        path = self.runs[0].name if self.is_single else self.folder.rstrip('/')
        return os.path.basename(os.path.abspath(path)) if path else f'{len(self.runs):,} runs'


def create(
    records: Sequence[Record],
    group_by: Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str | None = None,
) -> View:
    """Returns the View of records.

    Args:
        records: of runs, and of directories that hold none.
        group_by: the config fields to group by; None: those that differ.
        baseline: the label of a group, or a condition that it alone fulfils ('optim.name=sgd').
        metric: the result that is compared; None: the accuracy of the test, or of the validation
            where no run was tested.

    Raises:
        UserError: the baseline is no group, or several; no run has a field of `group_by`.
    """
    runs = [sound.record(record) for record in records if record.is_run]
    groups = group(runs, group_by)
    objectives = [record.trial.get('objective') for record in runs]
    objective = next((each for each in objectives if isinstance(each, str)), OBJECTIVE)
    ranking = metric = metric or comparisons.main_metric(groups)
    if len(groups) >= _MIN_TRIALS and any(each.values(objective) for each in groups):
        ranking = objective
    groups.sort(key=lambda each: _rank(each, ranking))
    return View(
        folder=_folder(runs),
        runs=tuple(run for each in groups for run in sorted(each.records, key=_seed)),
        foreign=tuple(record for record in records if not record.is_run),
        groups=tuple(groups),
        fields=tuple(differing(runs)),
        metric=metric,
        ranking=ranking,
        objective=objective,
        baseline=selection.baseline(groups, baseline) if baseline else None,
    )


def mark(color: int | None, label: Any) -> Markup:
    """Returns a name behind a dot of its colour."""
    class_ = 'cx' if color is None else f'c{color}'
    return tag('span', name(label), class_=f'mark {class_}')


def _rank(each: Group, metric: str) -> tuple[bool, float]:
    values = [value for value in each.values(metric).values() if math.isfinite(value)]
    if not values:
        return True, 0.0
    mean = math.fsum(values) / len(values)
    return False, mean if comparisons.is_lower_better(metric) else -mean


def _seed(record: Record) -> tuple[float, str]:
    seed = record.config.get('seed')
    return (seed if isinstance(seed, int | float) else math.inf), record.name


def _folder(runs: Sequence[Record]) -> str:
    if not runs:
        return ''
    folders = [record.name.split('/')[:-1] for record in runs]
    first, last = min(folders), max(folders)
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return ''.join(f'{part}/' for part, _ in shared)
