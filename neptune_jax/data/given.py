"""Images that a person gives to a finished run, to see how well it does on them.

Unlike the images of a training they may be few, of one class, or of classes that the run does not
know. They are converted as the training's were. Nothing is held out, and no copy is left out.
"""

import dataclasses
import functools
import math
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from neptune_jax import terminal
from neptune_jax.data.sources import arrays, files, opening, white
from neptune_jax.data.sources import images as conversions
from neptune_jax.data.sources.builder import numbered
from neptune_jax.data.sources.decoding import Unreadable
from neptune_jax.data.sources.folders import Remainder, images_below, list_folder, name_in
from neptune_jax.data.sources.images import Conversion
from neptune_jax.data.sources.layout import listed
from neptune_jax.data.sources.workers import map_all
from neptune_jax.errors import UserError

SPLITS = ('train', 'val', 'test')
NAMED = 10  # so many files a report names


@dataclasses.dataclass(frozen=True)
class GivenImages:
    """Images of the size and the classes of a finished run, in memory or in a temporary file."""

    images: np.ndarray  # uint8[N, H, W, C], memory-mapped
    labels: np.ndarray  # int32[N]: numbers of the run's classes
    names: list[str]  # of the images
    class_names: tuple[str, ...]  # of the run
    report: dict[str, Any]  # what was left out, and which classes there are
    mode: str = 'host'  # where batches come from

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.images.shape[1:]

    def read_images(self, examples: np.ndarray) -> np.ndarray:
        """Returns the images of examples int[n], uint8[n, H, W, C]."""
        return self.images[examples]


class _Raw(NamedTuple):
    """Raw images, none of which has been converted."""

    items: Sequence[Any]
    classes: list[str | None]  # the name of the class of each
    names: list[str]  # of each image
    decode: Callable  # (item, conversion) -> Converted; raises Unreadable
    splits: list[str]  # of each image; '' where the data have none
    not_used: Remainder | None = None
    in_processes: bool = False  # decoding takes long


def read(
    config: ConfigDict, splits: Sequence[str], classes: Sequence[str], conversion: Conversion
) -> GivenImages:
    """Returns the images that a `data` group names, with what was left out on the screen.

    Args:
        config: the group. `data.name` is 'image_folder', 'arrays', or the name of a data set.
        splits: those of the data to read; () for all.
        classes: of the run. Images of other classes are left out.
        conversion: of the run, complete.

    Raises:
        UserError: there are no such images, none of a class of the run, or they cannot be read.
    """
    try:
        if config.name == 'image_folder':
            raw = _folder(config, splits, classes)
        elif config.name == 'arrays':
            raw, conversion = _arrays(config, splits, classes, conversion)
        else:
            raw = _data_set(config, splits, conversion)
        return _convert(raw, classes, conversion)
    except (OSError, MemoryError) as error:
        problem = str(error) or 'out of memory'
        raise UserError(
            f'{config.path or config.name} cannot be read now ({problem}); make it readable, or '
            'take it away; temporary files go to the folder that TMPDIR names'
        ) from error


def _convert(raw, classes, conversion):
    """Returns the GivenImages of raw ones."""
    labels = {name: label for label, name in enumerate(classes)}
    found = Counter(raw.classes)
    unknown = {name: count for name, count in found.items() if name and name not in labels}
    known = [i for i, name in enumerate(raw.classes) if name in labels]
    if not known:
        raise UserError(
            f'none of the {len(raw.items):,} images is of a class of the run; their classes are '
            f'{listed(unknown) or "missing"}, those of the run {listed(classes)}'
        )
    shape = (*conversion.size, conversion.channels)
    load = functools.partial(_load, raw.decode, conversion)
    kept: list[int] = []
    unreadable: list[str] = []
    splits: Counter[str] = Counter()
    resized = 0
    with tempfile.TemporaryFile() as file, terminal.counted(len(known), 'images read') as advance:
        items = [raw.items[i] for i in known]
        each = map_all(load, items, math.prod(shape)) if raw.in_processes else map(load, items)
        for i, found_image in zip(known, each, strict=True):
            advance(1)
            if isinstance(found_image, Unreadable):
                unreadable.append(f'{raw.names[i]} ({found_image})')
                continue
            kept.append(i)
            file.write(found_image.image.tobytes())
            resized += 'resized' in found_image.rules
            splits[raw.splits[i]] += 1
        if not kept:
            raise UserError(f'none of the {len(known):,} images can be read: {unreadable[0]}')
        file.flush()
        images = np.memmap(file, np.uint8, 'r', shape=(len(kept), *shape))
    own = np.array([labels[raw.classes[i]] for i in kept], np.int32)
    present = set(own.tolist())
    missing = [name for label, name in enumerate(classes) if label not in present]
    report = {
        'splits': {split: count for split, count in splits.items() if split},
        'classes_unknown_to_the_run': unknown,
        'classes_without_images': missing,
        'without_label': found[None],
        'resized': resized,
        'unreadable': {'count': len(unreadable), 'examples': unreadable[:NAMED]},
        'not_used': raw.not_used.rule() if raw.not_used and raw.not_used.kinds else {},
    }
    _say(report, len(classes), conversion)
    return GivenImages(images, own, [raw.names[i] for i in kept], tuple(classes), report)


def _load(decode, conversion, item):
    """Returns the Converted of an image, or why it is left out."""
    try:
        return decode(item, conversion)
    except Unreadable as error:
        return error


def _say(report, num_classes, conversion):
    """Prints what was left out, and which classes of the run have no images."""
    unknown, missing = report['classes_unknown_to_the_run'], report['classes_without_images']
    notes = []
    if unknown:
        counts = [f'{name} ({count:,})' for name, count in unknown.items()]
        notes.append(f'the run does not know these classes, left out: {listed(counts)}')
    if missing:
        notes.append(
            f'no images of {len(missing):,} of the {num_classes:,} classes of the run: '
            f'{listed(missing)}; where one is predicted, the means (macro) count it as 0'
        )
    if report['without_label']:
        notes.append(f'{report["without_label"]:,} image(s) without a label, left out')
    if count := report['unreadable']['count']:
        first = report['unreadable']['examples'][0]
        notes.append(f'{count:,} image(s) cannot be read, left out; the first: {first}')
    if report['resized']:
        height, width = conversion.size
        notes.append(
            f'{report["resized"]:,} image(s) are not of {height}x{width} pixels, and were changed '
            f'by the rule {conversion.resize!r} (--resize)'
        )
    if report['not_used']:
        kinds = ', '.join(f'{n:,} {kind}' for kind, n in report['not_used']['kinds'].items())
        notes.append(f'not used: {kinds}')
    for note in notes:
        terminal.line(f'note     {note}')


def _folder(config, splits, classes):
    """Returns the images of PATH/CLASS/**, or of PATH/SPLIT/CLASS/** for some splits.

    A folder train, val or test that holds folders with images is a split, unless the run has a
    class of this name.
    """
    path = Path(config.path)
    if not path.is_dir():
        raise UserError(f'{config.path!r} is not a folder; expected: folders named like classes')
    remainder = Remainder(path)
    loose, folders = list_folder(path, remainder)
    parts = [
        each
        for each in folders
        if os.path.basename(each) in SPLITS
        and os.path.basename(each) not in classes
        and list_folder(each, Remainder(path))[1]
    ]
    for each in loose + ([each for each in folders if each not in parts] if parts else []):
        remainder.add(each, 'beside the folders of splits' if parts else 'outside the folders')
    items: list[str] = []
    of: list[str | None] = []
    split_of: list[str] = []
    _check_splits(splits, [os.path.basename(part) for part in parts], path)
    for part in parts or [str(path)]:
        split = os.path.basename(part) if parts else ''
        if splits and split not in splits:
            remainder.add(part, 'splits that were not asked for')
            continue
        for folder in list_folder(part, remainder)[1] if parts else folders:
            found = list(images_below(folder, remainder))
            items += found
            of += [unicodedata.normalize('NFC', os.path.basename(folder))] * len(found)
            split_of += [split] * len(found)
    if not items:
        raise UserError(f'{path} has no images in folders named like classes; found: {remainder}')
    names = [name_in(path, item) for item in items]
    return _Raw(items, of, names, files.decode_file, split_of, remainder, in_processes=True)


def _check_splits(asked, found, where):
    missing = [split for split in asked if split not in found]
    if missing:
        raise UserError(
            f'--split={missing[0]}: {where} has {", ".join(found) or "no"} splits; leave --split '
            'away for all images'
        )


def _arrays(config, splits, classes, conversion):
    """Returns the images of an .npz, .npy or .csv file, and a conversion that knows their white.

    Labels are numbers of the run's classes, from 0. If the names of all its classes are numbers, as
    of a run that was trained on arrays, a label is such a name.
    """
    paths = arrays.files_of(config)
    parts, notes = arrays.read(paths, config.label_column, conversion, only_test=True)
    _check_splits(splits, list(parts), paths[0])
    parts = {split: part for split, part in parts.items() if not splits or split in splits}
    values = {split: white.values_of_arrays(found) for split, (found, _) in parts.items()}
    resolved, guesses = white.resolve(paths[0], conversion._replace(whites={}), values, numbered)
    conversion = conversion._replace(whites={**resolved.whites, **conversion.whites})
    for note in [*notes, *guesses]:
        terminal.line(f'note     {note}')
    are_numbers = all(name.isdecimal() for name in classes)

    def class_of(label):
        if label is None:
            return None
        return classes[label] if not are_numbers and label < len(classes) else str(label)

    return _Raw(
        items=[image for found, _ in parts.values() for image in found],
        classes=[class_of(label) for _, labels in parts.values() for label in labels],
        names=[numbered(s, i) for s, (_, labels) in parts.items() for i in range(len(labels))],
        decode=conversions.convert,
        splits=[split for split, (_, labels) in parts.items() for _ in labels],
    ), conversion


def _data_set(config, splits, conversion):
    """Returns the images of a data set that the package or tfds knows by its name."""
    source = opening.open_source(config)
    _check_splits(splits, list(source.splits), config.name)
    parts = {split: part for split, part in source.splits.items() if not splits or split in splits}
    examples = np.concatenate(list(parts.values()))
    labels = source.index()['label'][examples]
    images = source.images()
    return _Raw(
        items=[images[example] for example in examples],
        classes=[source.class_names[label] for label in labels],
        names=[source.name(example) for example in examples],
        decode=conversions.convert,
        splits=[split for split, part in parts.items() for _ in part],
    )
