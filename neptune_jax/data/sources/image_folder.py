"""A folder of images: one subfolder for each class, in one folder for each split or in none."""

import functools
import os
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from neptune_jax.data.sources import files, raw, white, workers
from neptune_jax.data.sources.builder import Preparation
from neptune_jax.data.sources.folders import (
    EXAMPLES,
    Remainder,
    images_below,
    list_folder,
    name_in,
    printable,
)
from neptune_jax.data.sources.layout import (
    EXPECTED,
    OUTSIDE,
    SPLITS,
    check_levels,
    listed,
    split_folders,
)
from neptune_jax.errors import UserError
from neptune_jax.runs.files import expand_user


class Split(NamedTuple):
    """The images of a split, in the order of their classes' folders."""

    folder: Path
    files: list[str]
    classes: list[str]  # of each file
    empty: dict[str, Remainder]  # by class: what its folder holds, without any image


def preparation(config: ConfigDict, data_dir: Path) -> Preparation:
    """Returns the Preparation of `path/train/CLASS/**/*.png` and, if they exist, `val` and `test`.

    Without a folder `train`, the folders of the classes are in `path` itself. What is there and not
    used is counted in the Preparation's `rules`.

    Args:
        config: the `data` group.
        data_dir: the folder of prepared data.

    Raises:
        UserError: no such folder, folders in which splits and classes cannot be told apart, less
            than two classes, a class of one image, a class that training lacks.
        OSError: a folder cannot be read.
    """
    if not config.path:
        raise UserError(f'data.name={config.name!r} needs --config.data.path')
    path = Path(expand_user(config.path, 'data.path'))
    if not path.is_dir():
        raise UserError(f'data.path={str(path)!r} is not a folder; {EXPECTED}')
    remainder = Remainder(path)
    splits = {
        split: _list_split(folder, remainder)
        for split, folder in split_folders(path, remainder).items()
    }
    classes = _check_classes(splits, remainder)

    def name_of(split, number):
        return name_in(path, splits[split].files[number])

    return raw.preparation(
        config,
        data_dir,
        name='image_folder',
        files=[Path(file) for split in splits.values() for file in split.files],
        settings=sorted(files.endings()),  # another Pillow may decode what this one cannot
        read=functools.partial(_read, path, splits, classes, name_of),
        name_of=name_of,
        rules=_rules(path, splits, remainder),
    )


def _list_split(folder, remainder):
    """Returns the Split in a folder. Counts what is not used.

    Raises:
        UserError: no images, two folders of one class.
    """
    here = Remainder(remainder.top)
    images, class_folders = list_folder(folder, here)
    for file in images:
        here.add(file, OUTSIDE)
    split = Split(folder, [], [], {})
    names: dict[str, str] = {}
    for each in class_folders:
        # macOS writes é as two characters. The same name on another system has one.
        name = unicodedata.normalize('NFC', os.path.basename(each))
        if name in names:
            raise UserError(
                f'{folder} has two folders that are both called {printable(name)!r}, in different '
                f'Unicode forms: {os.path.basename(names[name])!a} and '
                f'{os.path.basename(each)!a}; move the images of one to the other'
            )
        names[name] = each
        inside = Remainder(remainder.top)
        found = list(images_below(each, inside))
        split.files.extend(found)
        split.classes.extend([name] * len(found))
        if found:
            here.update(inside)
        else:
            split.empty[name] = inside
    if not split.files:
        here.update(*split.empty.values())
        raise UserError(_no_images(folder, here, len(images)))
    remainder.update(here)
    return split


def _no_images(folder, found, loose):
    """Returns the error message for a split without images in folders of classes."""
    message = f'{folder} has no images; put those of each class into a folder in it; found: {found}'
    absolute = folder.absolute()
    if loose and absolute.name not in SPLITS:
        above = absolute.parent.parent if absolute.parent.name in SPLITS else absolute.parent
        message += f'; is {absolute.name!r} a class, set --config.data.path={above}'
    return message


def _check_classes(splits, remainder):
    """Returns the names of the training classes, sorted: the label is the place in this list."""
    train = splits['train']
    classes = sorted(set(train.classes))
    for name in classes:  # tfds keeps them as the lines of a text file
        if name != name.strip() or not name.isprintable():
            raise UserError(
                f'{train.folder}: rename the folder {name!r}; it names a class, and has blanks '
                'around it or characters that cannot be printed'
            )
    check_levels(train.folder, train.files, classes)
    for split in splits.values():
        unknown = sorted(set(split.classes).difference(classes))
        if unknown:
            empty = ', which holds no images there' if unknown[0] in train.empty else ''
            raise UserError(
                f'{split.folder / unknown[0]}: training has no class {printable(unknown[0])!r}'
                f'{empty}; it has {listed(classes)}'
            )
    more = ', '.join(f'{printable(name)} ({found})' for name, found in train.empty.items())
    found = f' (without images: {more})' if more else ''
    found += f' (not read: {remainder})' if remainder.kinds else ''
    raw.check_counts(train.folder, train.classes, found)
    return classes


def _rules(path, splits, remainder):
    """Returns what is guessed and what is not used, for data_report.json."""
    rules: dict[str, Any] = {}
    deeper = [
        file
        for split in splits.values()
        for file in split.files
        if file.count(os.sep, len(str(split.folder)) + 1) > 1
    ]
    if deeper:
        examples = [name_in(path, file) for file in deeper[:EXAMPLES]]
        rules['in_subfolders_of_classes'] = {'count': len(deeper), 'examples': examples}
    empty = [
        (split, name, found) for split in splits.values() for name, found in split.empty.items()
    ]
    if empty:
        examples = [f'{name_in(path, s.folder / name)} ({found})' for s, name, found in empty]
        rules['folders_without_images'] = {'count': len(empty), 'examples': examples[:EXAMPLES]}
    top = path.absolute()
    beside = [name for name in ('val', 'test') if (top.parent / name).is_dir()]
    if top.name == 'train' and beside:
        for name in beside:
            remainder.add(top.parent / name, f'splits beside data.path={path}')
    if remainder.kinds:
        rules['not_used'] = remainder.rule()
    return rules


def _read(path, splits, classes, name_of, conversion):
    labels = {name: label for label, name in enumerate(classes)}
    train = splits['train']
    found = {name: _values(split.files, conversion) for name, split in splits.items()}
    conversion, notes = white.resolve(path, conversion, found, name_of)
    return raw.RawImages(
        class_names=classes,
        splits={
            name: [(file, labels[of]) for file, of in zip(split.files, split.classes, strict=True)]
            for name, split in splits.items()
        },
        load=files.load_file,
        conversion=raw.resolve(conversion, train.files, files.shape_of_file, train.folder),
        content=files.content_of_file,
        notes=notes,
    )


def _values(paths, conversion):
    """Returns the ranges of the files with more than 8 bits, by kind of number."""
    deep = [i for i, path in enumerate(paths) if files.may_be_deep(path)]
    range_of = functools.partial(files.range_of_file, max_pixels=conversion.max_pixels)
    ranges = workers.map_all(range_of, [paths[i] for i in deep])
    return white.values_of_images(zip(deep, ranges, strict=True))
