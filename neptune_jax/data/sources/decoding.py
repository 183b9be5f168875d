"""One image file, decoded by Pillow: upright, and whatever damage its metadata have."""

import contextlib
import errno
import io
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from neptune_jax.data.sources import metadata
from neptune_jax.errors import one_line

Image.MAX_IMAGE_PIXELS = None  # data.clean.max_pixels is the limit

# Formats that Pillow recognises but does not decode, or only with another program.
NO_PICTURES = {'BUFR', 'EPS', 'GRIB', 'HDF5', 'MPEG', 'WMF'}

WHITE_16 = 65535  # of a file or an array that uses all of its 16 bits

# How to turn an image upright, by the number of its orientation (EXIF 2.32, 4.6.4).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """An image that cannot be used. The message says why."""

    rule = 'unreadable'  # its name in the report


class Opened(NamedTuple):
    """A decoded image file."""

    image: Image.Image  # upright
    raw_mode: str  # how the pixels lie in the file, in Pillow's words
    white: float  # the number that means white if the format says it, else 0
    rules: list[str]  # what is worth a line in the report

    @property
    def is_deep(self) -> bool:
        """Whether the pixels are numbers of more than 8 bits."""
        return self.image.mode.startswith('I') or self.image.mode == 'F'

    @property
    def is_cut(self) -> bool:
        """Whether Pillow has cut each number of 16 bits to its upper 8, as it does in colour."""
        return ';16' in self.raw_mode and not self.is_deep


def pixels_of(image: Image.Image) -> np.ndarray:
    """Returns the numbers of an image of more than 8 bits, uint16, int32 or float32[H, W]."""
    array = np.asarray(image)
    return array.astype(np.uint16) if image.format == 'PPM' and image.mode == 'I' else array


def open_image(path: str | Path | BinaryIO, max_pixels: int) -> Image.Image:
    """Returns the Pillow image of a file, decoded and turned upright as its EXIF data say.

    Raises:
        Unreadable: not an image, truncated, or of more than `max_pixels` pixels.
        OSError, MemoryError: the file cannot be read now, which says nothing about the image.
    """
    return open_file(path, max_pixels).image


def open_file(path: str | Path | BinaryIO, max_pixels: int) -> Opened:
    """Returns what `open_image` does, and what else is known of the file. Raises the same."""
    try:
        return _load(path, max_pixels)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # with damaged bytes Pillow raises exceptions of any class
        if _is_of_system(error):
            raise
        opened = _load_what_is_whole(_read(path), max_pixels)
        if opened is None:
            raise Unreadable(one_line(error)) from error
        return opened


def _load_what_is_whole(content, max_pixels):
    """Returns what `_load` does for a file that Pillow refuses although its picture is whole.

    None for a file with a damaged picture.
    """
    content = metadata.without_metadata(content)
    if content is None:
        return None
    with contextlib.suppress(Exception):
        opened = _load(io.BytesIO(content), max_pixels)
        return opened._replace(rules=[*opened.rules, 'without_metadata'])
    # If nothing but the end of a JPEG file is missing, no pixel depends on what stands there. (A
    # progressive file may lack its last scans, which no pixel shows.)
    content = content.removesuffix(b'\xff')
    with contextlib.suppress(Exception):
        opened, *others = (
            _load(io.BytesIO(content + filler * 250 + metadata.JPEG_END), max_pixels)
            for filler in (b'\0\0', b'\xfe\xfe', b'\xa5\x5a')
        )
        pixels = np.asarray(opened.image)
        if not opened.image.info.get('progressive') and all(
            np.array_equal(pixels, np.asarray(other.image)) for other in others
        ):
            return opened._replace(rules=[*opened.rules, 'without_end'])
    return None


def _is_of_system(error):
    # The system's errors have a number. Number EINVAL is a wrong offset in a damaged file.
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _read(path):
    if isinstance(path, (str, Path)):
        return Path(path).read_bytes()
    path.seek(0)
    return path.read()


def _load(path, max_pixels):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of oddities in files that it can read
        Image.init()
        formats = [name for name in Image.ID if name not in NO_PICTURES]
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > max_pixels:
                raise Unreadable(
                    f'{image.width}x{image.height} pixels are more than '
                    f'data.clean.max_pixels={max_pixels}'
                )
            raw_mode, white, file_format = raw_mode_of(image), _white(image), image.format
            image.load()
            method = UPRIGHT.get(_orientation(image))
            if method is not None:
                image = image.transpose(method)
    image.format = file_format
    _scale_transparent_colour(image, raw_mode)
    opened = Opened(image, raw_mode, white, [])
    return opened._replace(rules=['from_16_bit_colour']) if opened.is_cut else opened


def raw_mode_of(image: Image.Image) -> str:
    """Returns how the pixels lie in a file that is open but not loaded; '' if it is not known."""
    arguments = _arguments(image)
    if not isinstance(arguments[0], str):
        return ''
    if image.format == 'PPM' and arguments[-1] == WHITE_16:
        return f'{arguments[0]};16'
    return arguments[0]


def _white(image):
    """Returns the number that means white if the format says it, else 0."""
    arguments = _arguments(image)
    largest = arguments[-1]  # if Pillow scales the numbers of a PPM file to 16 bits
    if image.format == 'PPM' and isinstance(largest, int) and largest < WHITE_16:
        return WHITE_16
    return 4095 if arguments[0] == 'I;12' else 0


def _arguments(image):
    """Returns what Pillow tells its decoder of a file, such as (raw mode, ...), as a tuple."""
    arguments = image.tile[0][3] if image.tile else ''
    return arguments if arguments and isinstance(arguments, tuple) else (arguments,)


def _orientation(image):
    exif = image.info.get('exif')
    found = metadata.orientation(exif) if isinstance(exif, bytes) else None
    if found is None:
        with contextlib.suppress(Exception):  # a damaged block says nothing
            found = image.getexif().get(metadata.ORIENTATION)
    return found if isinstance(found, int) else None


def _scale_transparent_colour(image, raw_mode):
    """Scales the transparent colour as Pillow has scaled the pixels."""
    colour = image.info.get('transparency')
    if isinstance(colour, int) and raw_mode in ('L;2', 'L;4'):
        image.info['transparency'] = colour * {'L;2': 85, 'L;4': 17}[raw_mode]
    elif isinstance(colour, tuple) and raw_mode == 'RGB;16B':
        image.info['transparency'] = tuple(value >> 8 for value in colour)


def transparent_pixels(image: Image.Image) -> np.ndarray | None:
    """Returns which pixels of an image of 16 bits have its transparent colour; None: it has none.

    bool[H, W].
    """
    colour = image.info.get('transparency')
    return np.asarray(image) == colour if isinstance(colour, int) else None
