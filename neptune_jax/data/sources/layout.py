"""Which folders are splits and which are classes. What is not understood is refused."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from neptune_jax.data.sources.folders import (
    EXAMPLES,
    Remainder,
    images_below,
    list_folder,
    printable,
)
from neptune_jax.errors import UserError

SPLITS = ('train', 'val', 'test')
OUTSIDE = 'images outside the folders of classes'
# What people call the folder of a split, in lower case.
_SPLIT_NAMES = {'train', 'training', 'trn', 'val', 'valid', 'validation', 'validate', 'dev'}
_SPLIT_NAMES |= {'test', 'testing', 'tst', 'eval', 'evaluation'}
EXPECTED = 'expected: PATH/train/CLASS/*.png, maybe PATH/val and PATH/test, or PATH/CLASS/*.png'


def split_folders(path: Path, remainder: Remainder) -> dict[str, Path]:
    """Returns the folder of each split. Counts the files beside them.

    Raises:
        UserError: folders that may be splits but are not named so, or splits beside classes.
    """
    here = Remainder(path)
    images, folders = list_folder(path, here)
    names = {os.path.basename(folder): folder for folder in folders}
    roots = {split: path / split for split in SPLITS if split in names}
    others = [name for name in names if name not in SPLITS]
    if 'train' in roots:
        _check_beside_train(path, others, remainder)
        for file in images:
            here.add(file, OUTSIDE)
        remainder.update(here)
        for one, other in (('train', 'val'), ('train', 'test'), ('val', 'test')):
            if {one, other} <= {*roots} and os.path.samefile(roots[one], roots[other]):
                raise UserError(f'{roots[one]} and {roots[other]} are the same folder, by a link')
        return roots
    alike = [name for name in names if name.lower() in _SPLIT_NAMES]
    if alike and len(alike) == len(names):
        wrong = alike
    else:
        wrong = [name for name in names if _named_like_split(name) and _holds_classes(path / name)]
    if wrong:
        raise UserError(
            f'{path} holds the folder(s) {listed(wrong)}, which look like splits but must be '
            'named train, val and test; rename them, or link to them by these names in another '
            f'folder; {EXPECTED}'
        )
    return {'train': path}


def _check_beside_train(path, others, remainder):
    """Counts folders beside `train` that hold no images, and refuses others."""
    strange = []
    for name in others:
        inside = Remainder(path)
        if name.lower() in _SPLIT_NAMES or next(images_below(path / name, inside), None):
            strange.append(name)
        else:
            remainder.add(path / name, 'folders without images')
    if not strange:
        return
    if any(_holds_classes(path / name) for name in strange if _named_like_split(name)):
        raise UserError(
            f'{path / strange[0]} is not a split; name it val or test, or move it away; {EXPECTED}'
        )
    raise UserError(
        f'{path} holds the folder train beside {listed(strange)}: is train a class too, move all '
        f'folders of classes into one new folder {path / "train"}; is it the training split, then '
        f'{path / strange[0]} is not a split; name it val or test, or move it away'
    )


def _named_like_split(name):
    return not _SPLIT_NAMES.isdisjoint(re.split('[^a-z]+', name.lower()))


def _holds_classes(folder):
    """Whether a folder has images in its folders and none directly in it."""
    images, folders = list_folder(folder, Remainder(folder))
    return not images and any(next(images_below(f, Remainder(folder)), None) for f in folders)


def check_levels(folder: Path, files: Sequence[str], classes: Sequence[str]) -> None:
    """Raises UserError if the folders of classes seem to be on another level.

    Args:
        folder: of the training split.
        files: its images.
        classes: the names of their classes, which are folders in `folder`.
    """
    start = len(str(folder)) + 1
    inside = {file[start:].split(os.sep)[1] for file in files}
    inner = [name for name in inside if name.lower() in _SPLIT_NAMES]
    if inner:
        raise UserError(
            f'{folder} holds folders of splits ({listed(inner)}) in {listed(classes)}: '
            + (f'set --config.data.path={folder / classes[0]}' if len(classes) == 1 else EXPECTED)
        )
    if len(classes) == 1 and _holds_classes(folder / classes[0]):
        raise UserError(
            f'{folder} has only one folder with images, {classes[0]!r}, with folders in it; '
            f'are those the classes, set --config.data.path={folder / classes[0]}'
        )


def listed(names: Collection[str]) -> str:
    """Returns the first names, sorted, and the number of the others."""
    shown = ', '.join(map(printable, sorted(names)[:EXAMPLES]))
    return shown + (f' and {len(names) - EXAMPLES:,} more' if len(names) > EXAMPLES else '')
