"""What the tests of the shown runs have left: labels, predictions and losses of the images."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np

from neptune_jax.reporting.grouping import Group
from neptune_jax.reporting.page.views import View
from neptune_jax.reporting.run_record import Record

_PREDICTIONS = 'artifacts/predictions.npz'
_ARRAYS = ('index', 'label', 'prediction', 'confidence', 'loss')


@dataclasses.dataclass(frozen=True)
class Tested:
    """The test of a run.

    Attributes:
        record: of the run.
        name: of the run, to show.
        color: of the run's group in charts.
        classes: the names of the K classes.
        index, label, prediction: int[n], of the images.
        confidence, loss: float[n].
        confusion: int[K, K]; rows: labels; columns: predictions.
    """

    record: Record
    name: str
    color: int
    classes: tuple[str, ...]
    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray
    confusion: np.ndarray


def choose(view: View) -> list[Tested]:
    """Returns the tests that are shown: that of the best run, and one to compare it with.

    The first is of the best group, or of the next one that has predictions; the other is of the
    baseline, or of the second group. Of a group it is the run with the best validation accuracy.
    """
    groups = list(view.groups)
    if view.is_search and view.baseline is None:
        groups = groups[:1]
    elif view.baseline and view.baseline is not groups[0]:
        groups = [groups[0], view.baseline]
    found: list[Tested] = []
    for each in groups[:4]:
        tested = _of_group(view, each, color=len(found))
        if tested and (not found or _is_comparable(found[0], tested)):
            found.append(tested)
        if len(found) == 2:
            break
    return found


def _of_group(view: View, group: Group, color: int) -> Tested | None:
    runs = [each for each in group.records if each.workdir and _PREDICTIONS in each.artifacts]
    runs.sort(key=lambda each: -(each.value('best/accuracy') or 0.0))
    for record in runs[:2]:
        tested = _read(record, view.short_name(record), color)
        if tested:
            return tested
    return None


def _read(record: Record, name: str, color: int) -> Tested | None:
    """Returns the test of a run; None if its predictions are damaged or of other classes."""
    try:
        # NumPy does not close a damaged file that it has opened itself.
        with open(Path(record.workdir) / _PREDICTIONS, 'rb') as file, np.load(file) as arrays:
            found = {key: arrays[key] for key in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    data = record.environment.get('data') or {}
    label, prediction = found['label'].astype(np.int64), found['prediction'].astype(np.int64)
    if len(label) == 0 or {len(each) for each in found.values()} != {len(label)}:
        return None
    size = 1 + int(max(label.max(), prediction.max()))
    classes = tuple(map(str, data.get('classes') or range(size)))
    if len(classes) < size or min(label.min(), prediction.min()) < 0:
        return None
    size = len(classes)
    confusion = np.bincount(label * size + prediction, minlength=size**2).reshape(size, size)
    return Tested(record, name, color, classes, **found, confusion=confusion)


def _is_comparable(one: Tested, other: Tested) -> bool:
    return (
        one.record.test_images == other.record.test_images
        and one.classes == other.classes
        and np.array_equal(one.label, other.label)
    )
