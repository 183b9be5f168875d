"""Groups of runs compared with each other: differences, tests, and what cannot be compared."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neptune_jax.reporting import predictions, statistics
from neptune_jax.reporting.grouping import Group

METRICS = ('test/accuracy', 'val/accuracy')  # the first that a run has is the one that counts
LEVEL = 0.95
MAX_PAIRED_GROUPS = 5  # with more of them, only a baseline is compared with the others
_LOWER_IS_BETTER = ('loss', 'ece', 'seconds')
_NAN = math.nan


@dataclasses.dataclass(frozen=True)
class Summary:
    """A metric of the finished runs of a group. What is not known is NaN."""

    group: Group
    metric: str
    values: Mapping[Any, float]  # of each run, by its seed
    mean: statistics.Mean
    unfinished: int  # runs that are left out
    count: int  # test or validation images, 0 if unknown
    binomial_error: float  # of the mean, because these images are a sample; for accuracies
    between: statistics.BetweenRuns  # of the accuracy on the test images


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two groups compared, A minus B. What does not exist is NaN."""

    a: Group
    b: Group
    metric: str
    refusal: str = ''  # one line: why they are not compared
    method: str = ''  # 'paired', 'welch' or 'mcnemar'
    pairs: tuple[tuple[Any, float, float], ...] = ()  # (seed, value of A, value of B)
    difference: float = _NAN
    low: float = _NAN  # of the 95% interval of the difference
    high: float = _NAN
    p_value: float = _NAN  # Student's (pairs), Welch's or McNemar's
    adjusted: float = _NAN  # the same by Holm, for the comparisons of the table
    sign_flip_p: float = _NAN  # of pairs
    superiority: float = _NAN  # the probability that a run of A is better than one of B
    superiority_low: float = _NAN
    superiority_high: float = _NAN
    only_a: int = 0  # images that only A classifies correctly (two single runs)
    only_b: int = 0


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of a metric is the better one."""
    return metric.endswith(_LOWER_IS_BETTER)


def main_metric(groups: Sequence[Group]) -> str:
    """Returns the accuracy of the test, or that of the validation where no run was tested."""
    return next((name for name in METRICS if any(g.values(name) for g in groups)), METRICS[0])


def summarize(group: Group, metric: str) -> Summary:
    """Returns the Summary of a metric, such as 'test/accuracy', of a group."""
    values = group.values(metric)
    mean = statistics.mean_interval(list(values.values()), LEVEL)
    split, _, name = metric.removeprefix('last/').partition('/')
    counts = {record.value(f'{split}/count') for record in group.finished()} if name else set()
    count = counts.pop() if len(counts) == 1 else None
    count = count if isinstance(count, int) else 0
    error = _NAN
    if name.startswith('accuracy') and mean.n:
        error = statistics.binomial_error(mean.mean, count)
    return Summary(
        group=group,
        metric=metric,
        values=values,
        mean=mean,
        unfinished=len(group.records) - len(group.finished()),
        count=count,
        binomial_error=error,
        between=_between(group) if metric == 'test/accuracy' else _UNKNOWN,
    )


def compare_all(
    groups: Sequence[Group], metric: str, baseline: Group | None = None
) -> list[Comparison]:
    """Returns the comparisons of a table, with p-values adjusted for their number (Holm).

    Args:
        groups: of runs.
        metric: such as 'test/accuracy'.
        baseline: the group that each other is compared with (it is B); None: each pair of at most
            five groups is compared, and of more groups none.
    """
    if baseline is not None:
        pairs = [(each, baseline) for each in groups if each is not baseline]
    elif len(groups) <= MAX_PAIRED_GROUPS:
        pairs = list(itertools.combinations(groups, 2))
    else:
        pairs = []
    found = [compare(a, b, metric) for a, b in pairs]
    adjusted = statistics.holm([each.p_value for each in found])
    return [dataclasses.replace(each, adjusted=p) for each, p in zip(found, adjusted, strict=True)]


def compare(a: Group, b: Group, metric: str) -> Comparison:
    """Returns the Comparison of two groups.

    Runs with the same seeds are compared in pairs, others by Welch's test, and two single runs by
    the images that only one of them classifies correctly.
    """
    refusal = _refusal(a, b, metric)
    if refusal:
        return Comparison(a, b, metric, refusal)
    one, other = a.values(metric), b.values(metric)
    if len(one) == len(other) == 1:
        return _compare_single(a, b, metric)
    if min(len(one), len(other)) < 2:
        few, more = (a, b) if len(one) < 2 else (b, a)
        text = f'seed: {few.label!r} has one run and {more.label!r} has more; train it with others'
        return Comparison(a, b, metric, text)
    sign = -1 if is_lower_better(metric) else 1
    is_paired = one.keys() == other.keys()
    if is_paired:
        pairs = tuple((seed, one[seed], other[seed]) for seed in one)
        left, right = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
        found = statistics.paired(left, right, LEVEL)
    else:
        pairs, left, right = (), list(one.values()), list(other.values())
        found = statistics.welch(left, right, LEVEL)
    share, (low, high) = statistics.probability_of_superiority(
        [sign * value for value in left], [sign * value for value in right], is_paired, LEVEL
    )
    return Comparison(
        a,
        b,
        metric,
        method='paired' if is_paired else 'welch',
        pairs=pairs,
        **found._asdict(),
        superiority=share,
        superiority_low=low,
        superiority_high=high,
    )


def _compare_single(a, b, metric):
    """Compares two single runs: images are the sample, as there is no other."""
    (one,), (other,) = a.values(metric).values(), b.values(metric).values()
    plain = Comparison(a, b, metric, difference=one - other)
    if metric != 'test/accuracy':
        return plain
    found = [predictions.read_correct(group.finished()[0]) for group in (a, b)]
    for group, each in zip((a, b), found, strict=True):
        if each is None:
            run = group.finished()[0].name
            text = f'{predictions.FILE}: {run} has none that can be read; train other seeds instead'
            return dataclasses.replace(plain, refusal=text)
    (right, crc), (other_right, other_crc) = found
    if crc != other_crc or len(right) != len(other_right):
        text = f'{predictions.FILE}: the two runs have other images or labels, or another order'
        return dataclasses.replace(plain, refusal=text)
    only_a, only_b = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    difference, (low, high) = statistics.paired_difference(only_a, only_b, len(right), LEVEL)
    return dataclasses.replace(
        plain,
        method='mcnemar',
        difference=difference,
        low=low,
        high=high,
        p_value=statistics.mcnemar_exact(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
    )


def _refusal(a, b, metric):
    """Returns why two groups cannot be compared, as a line that names the field; '' if they can."""
    for group in (a, b):
        unfinished = [record for record in group.records if record.status != 'finished']
        if unfinished:
            states = ', '.join(sorted({record.status or 'unknown' for record in unfinished}))
            return (
                f'status: {len(unfinished)} of {len(group.records)} runs of {group.label!r} '
                f"are not finished ({states}); wait, or leave them out: --where 'status==finished'"
            )
        lacking = [each for each in group.records if each.value(metric) is None]
        if lacking:
            return f'{metric}: {lacking[0].name} has no such result'
        if group.repeated():
            one, other = group.repeated()[0]
            return (
                f'seed: {one.name} and {other.name} have the same config and seed, so they are not '
                'two samples; leave one out, or tell them apart: --group_by=git/commit'
            )
    kinds = [{record.checkpoint for record in group.records} for group in (a, b)]
    split = metric.removeprefix('last/').partition('/')[0]
    if metric.startswith(('test/', 'val/')) and len(kinds[0] | kinds[1]) > 1:
        texts = [
            f'{g.label!r}: {" and ".join(sorted(k))}' for g, k in zip((a, b), kinds, strict=True)
        ]
        return (
            f'best: some results are of the best checkpoint and some of the last epoch '
            f'({"; ".join(texts)}); give all runs a validation split (data.val_fraction)'
        )
    if split in ('test', 'val') and split != metric:
        return _other_images(a, b, split)
    return ''


def _other_images(a, b, split):
    field = f'environment.json data.sha256.{split}'
    for group in (a, b):
        for record in group.records:
            if not record.images(split):
                return f'{field}: {record.name} does not name its images'
    one, other = a.members(), b.members()
    digests = [{run.images(split) for run in runs.values()} for runs in (one, other)]
    pairs = [(one[key], other[key]) for key in one if key in other]
    same = all(left.images(split) == right.images(split) for left, right in pairs)
    if digests[0] == digests[1] and (same or one.keys() != other.keys()):
        return ''
    shown = [', '.join(sorted(digest[:8] for digest in each)[:3]) for each in digests]
    return (
        f'{field}: {a.label!r} and {b.label!r} were measured on other images ({shown[0]} and '
        f'{shown[1]})'
    )


_UNKNOWN = statistics.BetweenRuns(_NAN, _NAN, _NAN)


def _between(group):
    """Returns the deviations between the runs of a group, if all their predictions are there."""
    if group.others or len(group.finished()) < 2:
        return _UNKNOWN
    found = [predictions.read_correct(record) for record in group.finished()]
    known = [each for each in found if each is not None]
    if len(known) < len(found) or len({(len(right), crc) for right, crc in known}) > 1:
        return _UNKNOWN
    return statistics.between_runs_deviation(np.stack([right for right, _ in known]))
