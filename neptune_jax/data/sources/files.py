"""Image files: the endings that Pillow decodes, and one file as an image."""

import errno
import functools
import os
from collections.abc import Callable
from typing import Any

from PIL import Image

from neptune_jax.data.sources import decoding, images, white
from neptune_jax.data.sources.decoding import Unreadable
from neptune_jax.data.sources.images import Conversion, Converted

HEIF_ENDINGS = {'.heic', '.heics', '.heif', '.heifs', '.hif'}
HEIF_NEEDS = 'pip install pillow-heif'
_HEIF_BRANDS = (b'heic', b'heix', b'hevc', b'heim', b'heis', b'mif1', b'msf1')


@functools.cache
def endings() -> frozenset[str]:
    """Returns the endings of the image files that the installed Pillow decodes, in lower case."""
    _register_heif()
    Image.init()
    # An MPO file, of several JPEG pictures, is opened as JPEG.
    return frozenset(
        ending.lower()
        for ending, kind in Image.registered_extensions().items()
        if (kind in Image.OPEN or kind == 'MPO') and kind not in decoding.NO_PICTURES
    )


@functools.cache
def _register_heif():
    """Lets Pillow decode HEIC and HEIF, if pillow-heif is installed. Returns whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decode_file(path: str, conversion: Conversion) -> Converted:
    """Returns `images.decode` of a file.

    Raises:
        Unreadable: the file holds no image that can be used.
        OSError: the file cannot be read now.
    """
    return _read(path, images.decode, conversion)


def load_file(item: tuple[str, int], conversion: Conversion) -> tuple[Converted, int]:
    """Returns the Converted of the file of a (path, label), and the label. Raises the same."""
    path, label = item
    return decode_file(path, conversion), label


def shape_of_file(path: str, conversion: Conversion) -> tuple[tuple[int, int], int]:
    """Returns the (height, width) of the image in a file, and its number of channels, 1 or 3.

    Raises:
        Unreadable, OSError: as `load_file`.
    """
    image = _read(path, decoding.open_image, conversion.max_pixels)
    return (image.height, image.width), images.channels_of(image)


def may_be_deep(path: str) -> bool:
    """Whether a file may hold an image of more than 8 bits, by its header. It raises nothing."""
    try:
        return _read(path, white.may_be_deep)
    except (Unreadable, OSError):  # the preparation names it
        return False


def range_of_file(path: str, max_pixels: int) -> white.Range | None:
    """Returns `white.range_of_file` for a file. It raises nothing."""
    try:
        return _read(path, white.range_of_file, max_pixels)
    except (Unreadable, OSError):  # the preparation names it
        return None


def content_of_file(item: tuple[str, int]) -> bytes:
    """Returns the bytes of the file of a (path, label)."""
    with open(item[0], 'rb') as file:
        return file.read()


def _read(path: str, read: Callable, *args: Any) -> Any:
    """Returns `read(file, *args)` for the open file. Says why a file cannot be an image."""
    _register_heif()
    try:
        with open(path, 'rb') as file:
            reason = _reason(file.peek(12)[:12])
            try:
                return read(file, *args)
            except Unreadable as error:
                if not reason:
                    raise
                raise Unreadable(reason) from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and os.path.islink(path):
            raise Unreadable(f'a link to {os.readlink(path)!r}, which is not there') from error
        raise OSError(error.errno, error.strerror, path) from error  # a failed read has no path


def _reason(start):
    """Returns why a file that starts with these bytes cannot be decoded; '' if they do not tell."""
    if not start:
        return 'the file is empty'
    if start[4:8] == b'ftyp' and start[8:12] in _HEIF_BRANDS and not _register_heif():
        return f'the file is in the format HEIF (HEIC): {HEIF_NEEDS}'
    return ''
