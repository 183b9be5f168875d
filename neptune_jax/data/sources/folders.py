"""What folders hold: the image files of a class, and everything beside them, counted by kind."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neptune_jax.data.sources.files import HEIF_ENDINGS, HEIF_NEEDS, endings

EXAMPLES = 10  # of each rule in the report
KINDS_SHOWN = 10  # the others are counted together
LOOPS = 'links to folders above them or read already'

# What programs leave in folders, in lower case. `._NAME` is litter too, of macOS.
_LITTER = {
    '.apdisk',
    '.directory',
    '.ds_store',
    '.fseventsd',
    '.git',
    '.gitattributes',
    '.gitignore',
    '.gitkeep',
    '.ipynb_checkpoints',
    '.localized',
    '.nomedia',
    '.picasa.ini',
    '.spotlight-v100',
    '.trashes',
    '$recycle.bin',
    '@eadir',
    '__macosx',
    '__pycache__',
    'desktop.ini',
    'ehthumbs.db',
    'icon\r',
    'lost+found',
    'system volume information',
    'thumbs.db',
}


class Remainder:
    """Counts what is not used, by its kind."""

    def __init__(self, top: Path) -> None:
        self.top = top  # names are relative to this folder
        self.kinds: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, path: str | Path, kind: str) -> None:
        """Counts a file or a folder."""
        self.kinds[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(name_in(self.top, path))

    def update(self, *others: 'Remainder') -> None:
        """Counts what others have counted."""
        for other in others:
            self.kinds += other.kinds
            for kind, examples in other._examples.items():
                known = self._examples.setdefault(kind, [])
                known += examples[: EXAMPLES - len(known)]

    def __str__(self) -> str:
        """Each kind with its number, the most frequent first."""
        shown = [f'{count:,} {kind}' for kind, count in self.kinds.most_common(KINDS_SHOWN)]
        others = self.kinds.total() - sum(n for _, n in self.kinds.most_common(KINDS_SHOWN))
        return ', '.join(shown + [f'{others:,} of other kinds'] * bool(others)) or 'nothing'

    def rule(self) -> dict[str, Any]:
        """Returns the entry of data_report.json: the count, of each kind too, and examples."""
        kinds = dict(self.kinds.most_common())
        # One example of each kind before the second of any.
        examples = [
            self._examples[kind][i]
            for i in range(EXAMPLES)
            for kind in kinds
            if i < len(self._examples[kind])
        ]
        return {'count': self.kinds.total(), 'kinds': kinds, 'examples': examples[:EXAMPLES]}


def name_in(top: Path, path: str | Path) -> str:
    """Returns the path below a folder as printable text on one line."""
    return printable(os.path.relpath(path, top))


def printable(name: str) -> str:
    """Returns a name with what cannot be printed as an escape sequence, such as a line break."""
    return ''.join(
        char if char.isprintable() else char.encode('unicode_escape').decode() for char in name
    )


def list_folder(folder: str | Path, remainder: Remainder) -> tuple[list[str], list[str]]:
    """Returns the paths of the image files and of the folders in a folder, each sorted by name.

    Litter, hidden files and folders, and files that Pillow does not decode are counted.

    Raises:
        OSError: the folder cannot be read.
    """
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_folder = _leads_to(entry.is_dir)
            kind = _unused(entry, is_folder)
            if kind:
                remainder.add(entry.path, kind)
            else:
                (folders if is_folder else files).append(entry.path)
    return files, folders


def _unused(entry, is_folder):
    """Returns the kind of a file or a folder that is not used; '' for one that is."""
    name = entry.name
    if name.lower() in _LITTER or name.startswith('._'):
        return '._*' if name.startswith('._') else printable(name)
    if name.startswith('.'):
        return 'hidden'
    if is_folder:
        return LOOPS if entry.is_symlink() and _leads_up(entry.path) else ''
    is_file = _leads_to(entry.is_file)
    ending = os.path.splitext(name)[1].lower()
    if not is_file and not entry.is_symlink():
        return 'no files (pipes, sockets, devices)'
    if not is_file and ending not in endings():
        return 'links that lead nowhere'
    if ending not in endings():
        needs = f' ({HEIF_NEEDS})' if ending in HEIF_ENDINGS else ''
        return f'{printable(ending)}{needs}' if len(ending) > 1 else 'without an ending'
    return ''  # also a link that leads nowhere: its target may be there when it is read


def _leads_to(is_kind):
    """Whether an entry is of a kind. A link in a circle is of none."""
    try:
        return is_kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _leads_up(link):
    """Whether a link leads to the folder that holds it, or to one above."""
    return Path(link).parent.resolve().is_relative_to(Path(link).resolve())


def images_below(folder: str | Path, remainder: Remainder) -> Iterator[str]:
    """Yields the paths of the image files in a folder, then those of its subfolders, by name.

    Links to folders are followed, except to one that is above or has been read: a loop.

    Args:
        folder: of a class.
        remainder: counts what is not used.

    Raises:
        OSError: a folder cannot be read.
    """
    above = Path(folder).resolve()
    known = {_identity(each) for each in (above, *above.parents)}
    pending = [os.fspath(folder)]
    while pending:
        files, folders = list_folder(pending.pop(), remainder)
        yield from files
        for each in reversed(folders):
            if os.path.islink(each) and _identity(each) in known:
                remainder.add(each, LOOPS)
                continue
            known.add(_identity(each))
            pending.append(each)


def _identity(folder):
    status = os.stat(folder)
    return status.st_dev, status.st_ino
