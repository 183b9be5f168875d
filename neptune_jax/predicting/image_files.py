"""The image files that a command line names, and their decoding, in order and beside other work."""

import functools
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from neptune_jax import terminal
from neptune_jax.data.sources import folders, workers
from neptune_jax.data.sources.decoding import Unreadable
from neptune_jax.data.sources.files import decode_file
from neptune_jax.data.sources.folders import Remainder
from neptune_jax.data.sources.images import Conversion, Converted
from neptune_jax.errors import UserError, one_line
from neptune_jax.runs.files import expand_user

STDIN = '-'
SAMPLED = 16  # files that are decoded first, spread evenly over all
IN_PROCESS_SECONDS = 2.0  # work of this length is done sooner than worker processes start


def list_files(names: Sequence[str], recursive: bool = False, separator: str = '\n') -> list[str]:
    """Returns the files that names stand for, in their order.

    A folder stands for the image files in it, sorted by name. '-' stands for the names that
    standard input holds. What else is in folders is counted in one line on the screen.

    Args:
        names: of files and folders.
        recursive: also read the folders in folders.
        separator: of the names on standard input.

    Raises:
        UserError: a folder cannot be read, or there are no files.
    """
    found: list[str] = []
    remainder = Remainder(Path())
    for name in names:
        if name == STDIN:
            parts = sys.stdin.buffer.read().split(os.fsencode(separator))
            for part in filter(None, parts):
                found += _files_of(os.fsdecode(part), recursive, remainder)
        else:
            found += _files_of(expand_user(name, 'FILE'), recursive, remainder)
    if not found:
        raise UserError(f'there are no image files in {" ".join(names)}; found: {remainder}')
    if remainder.kinds:
        terminal.line(f'note     not read in the folders: {remainder}')
    return found


def _files_of(name, recursive, remainder):
    try:
        if not os.path.isdir(name):
            return [name]
        if recursive:
            return list(folders.images_below(name, remainder))
        files, subfolders = folders.list_folder(name, remainder)
    except (OSError, ValueError) as error:
        raise UserError(f'the folder {name!r} cannot be read: {one_line(error)}') from error
    for each in subfolders:
        remainder.add(each, 'subfolder(s), which --recursive reads')
    return files


def shard(files: list[str], part: str) -> list[str]:
    """Returns one of n parts of the list, in order: the first part is '1/n', the last 'n/n'.

    Raises:
        UserError: a part that is none.
    """
    number, _, count = part.partition('/')
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f'--shard={part} must be 1/n to n/n, such as 1/4 for the first quarter')
    start, stop = (len(files) * n // int(count) for n in (int(number) - 1, int(number)))
    return files[start:stop]


def read(path: str, conversion: Conversion) -> Converted | str:
    """Returns the Converted of a file, or why it cannot be read, as one line."""
    try:
        return decode_file(path, conversion)
    except MemoryError:
        return 'out of memory'
    except OSError as error:
        return error.strerror or one_line(error)
    except (Unreadable, ValueError) as error:  # ValueError: a name that no file can have
        if isinstance(error.__cause__, UnidentifiedImageError):
            return 'no image, or of a format that Pillow does not read'
        return one_line(error)


class Sample:
    """Some of the files, decoded: what they look like, and how long the others will take."""

    def __init__(self, files: Sequence[str], conversion: Conversion) -> None:
        began = time.perf_counter()
        places = sorted({len(files) * i // SAMPLED for i in range(SAMPLED)}) if files else []
        self.decoded = {place: read(files[place], conversion) for place in places}
        each = (time.perf_counter() - began) / max(1, len(places))
        self.seconds = each * len(files)  # that all files take in this process

    @property
    def images(self) -> list[Converted]:
        """Those that could be read."""
        return [each for each in self.decoded.values() if not isinstance(each, str)]


def read_all(
    files: Sequence[str],
    conversion: Conversion,
    sample: Sample,
    *,
    start: int = 0,
    processes: int | None = None,
) -> Generator[np.ndarray | str]:
    """Yields each image, uint8[H, W, C], or why it cannot be read, in the order of the files.

    Where the work takes long, worker processes do it, some images ahead.

    Args:
        files: their names.
        conversion: Conversion of the run.
        sample: the Sample of these files.
        start: the place of the first file to yield.
        processes: how many; 0: this process reads the files itself. None: as many as cores, or
            none for little work.

    Raises:
        UserError: a worker process was killed.
    """
    if processes is None:
        processes = (os.cpu_count() or 1) if sample.seconds > IN_PROCESS_SECONDS else 0
    function: Callable = functools.partial(_pixels, conversion)
    if not processes:
        for place in range(start, len(files)):
            decoded = sample.decoded.get(place)
            yield function(files[place]) if decoded is None else _pixels_of(decoded)
        return
    nbytes = int(np.prod(conversion.size or (1, 1))) * conversion.channels
    later = (files[place] for place in range(start, len(files)))
    try:
        yield from workers.map_in_processes(function, later, processes, nbytes)
    except BrokenProcessPool as error:
        raise UserError(
            'a process that decodes images was killed, maybe because memory is short; free some, '
            'or set fewer --workers; with --resume the same command goes on'
        ) from error


def _pixels(conversion, path):
    return _pixels_of(read(path, conversion))


def _pixels_of(converted):
    return converted if isinstance(converted, str) else converted.image
