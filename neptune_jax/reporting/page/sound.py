"""Records as a page relies on them: what is of another type than a run writes is left out.

Anyone may have edited the JSON files of a run directory. That must not cost the whole page.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from neptune_jax.reporting.run_record import Record

_NUMBERS = ('step', 'epochs', 'train_seconds', 'images_per_second', 'params')
_SPLITS = ('best', 'val', 'test')
_TEXTS = ('python', 'processor', 'platform', 'driver')
_LARGEST = 1e100  # of a number that is shown


def record(found: Record) -> Record:
    """Returns a record in which summary, environment and rows have the types of a run's."""
    summary = {
        key: value
        for key, value in found.summary.items()
        if (key in _NUMBERS and _is_number(value)) or key == 'error'
    }
    for split in _SPLITS:
        if isinstance(found.summary.get(split), Mapping):
            own = {key: v for key, v in found.summary[split].items() if _is_number(v)}
            if own:
                summary[split] = own
    rows = tuple(
        {key: value for key, value in row.items() if _is_number(value)} for row in found.rows
    )
    return dataclasses.replace(
        found,
        status=str(found.status),
        summary=summary,
        environment=_environment(found.environment),
        rows=tuple(row for row in rows if isinstance(row.get('step'), int)),
    )


def _environment(found: Mapping[str, Any]) -> dict[str, Any]:
    sound = {key: found[key] for key in _TEXTS if isinstance(found.get(key), str)}
    if _is_number(found.get('cpu_count')):
        sound['cpu_count'] = found['cpu_count']
    for key in ('command', 'devices'):
        if isinstance(found.get(key), list):
            sound[key] = list(map(str, found[key]))
    if isinstance(found.get('packages'), Mapping):
        sound['packages'] = {key: str(value) for key, value in found['packages'].items()}
    git = found.get('git')
    if isinstance(git, Mapping) and isinstance(git.get('commit'), str):
        sound['git'] = {'commit': git['commit'], 'dirty': bool(git.get('dirty'))}
    if isinstance(found.get('data'), Mapping):
        sound['data'] = _data(found['data'])
    return sound


def _data(found: Mapping[str, Any]) -> dict[str, Any]:
    sound: dict[str, Any] = {}
    if isinstance(found.get('source'), str):
        sound['source'] = found['source']
    if isinstance(found.get('classes'), list):
        sound['classes'] = list(map(str, found['classes']))
    for key in ('sizes', 'sha256'):
        if isinstance(found.get(key), Mapping):
            wanted = str if key == 'sha256' else int
            sound[key] = {name: v for name, v in found[key].items() if isinstance(v, wanted)}
    shape = found.get('image_shape')
    sides = shape if isinstance(shape, list | tuple) and len(shape) == 3 else (0,)
    if all(isinstance(side, int) and 0 < side < 2**15 for side in sides):
        sound['image_shape'] = list(sides)
    return sound


def _is_number(value: Any) -> bool:
    """Whether a value is a number that can be shown; NaN and infinity are, in a way."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isfinite(value) or abs(value) < _LARGEST
