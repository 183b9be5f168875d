"""One raw image, a file or an array, to uint8[H, W, C]: mode, type, missing pixels, size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from neptune_jax.data.sources.decoding import (
    WHITE_16,
    Unreadable,
    open_file,
    pixels_of,
    transparent_pixels,
)
from neptune_jax.errors import UserError

ONE = 1 + 0.5 / 255  # floats up to here round to white if 1 is white


def _pad(image, size, method):
    """Does what ImageOps.pad does, but a very long or wide image keeps one line of pixels."""
    width, height = size
    if round(image.height / image.width * width) == 0:
        image = image.resize((width, 1), method)
    elif round(image.width / image.height * height) == 0:
        image = image.resize((1, height), method)
    return ImageOps.pad(image, size, method)


# How an image gets another size, and what replaces missing pixels, by their names in a config.
RESIZE = {'stretch': Image.Image.resize, 'crop': ImageOps.fit, 'pad': _pad}
FILL = {'mean': np.nanmean, 'median': np.nanmedian, 'zero': lambda _: 0.0, 'drop': None}


class MissingPixels(Unreadable):
    """An image with missing pixels, where those are to be dropped."""

    rule = 'missing_pixels'


class WrongSize(Unreadable):
    """An image of another size than the others, with `resize` unset."""


class Converted(NamedTuple):
    """An image of a data set."""

    image: np.ndarray  # uint8[H, W, C]
    rules: list[str]  # the names of those that changed it
    raw_shape: tuple[int, int, int]  # height, width and channels (1 or 3) before


class Conversion(NamedTuple):
    """How raw images become those of a data set."""

    size: tuple[int, int] | None = None  # (height, width); None: that of the first image
    channels: int = 0  # 1 (grey) or 3 (RGB); 0: as many as the first image has
    resize: str = ''  # '': refuse other sizes; 'stretch', 'crop' (the centre), 'pad' (with zeros)
    missing_pixels: str = 'mean'  # 'mean' or 'median' of the image's other pixels, 'zero', 'drop'
    max_pixels: int = 50_000_000  # files with more are not decoded: decompression bombs
    white: float = 0  # the number that means white in arrays and 16-bit files; 0: see `whites`
    whites: Mapping[str, float] = {}  # the same for each kind of number (`kind_of`)

    def to_dict(self) -> dict:
        """Returns a JSON value, which is saved with each checkpoint."""
        return self._asdict() | {'size': self.size and list(self.size), 'whites': dict(self.whites)}

    @classmethod
    def from_dict(cls, value: dict) -> 'Conversion':
        """Returns the Conversion that a value of `to_dict` describes."""
        return cls(**value | {'size': value['size'] and tuple(value['size'])})


def check_image_shape(size: Sequence[int], channels: int) -> None:
    """Raises UserError unless data.image_size and data.channels can be used; () and 0 are unset."""
    if size and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UserError(
            f'data.image_size={tuple(size)} must be a height and a width, such as (32, 32)'
        )
    if channels not in (0, 1, 3):
        raise UserError(f'data.channels={channels} must be 1, 3, or 0: as the first image')


def kind_of(dtype: np.dtype) -> str:
    """Returns the kind of a type of numbers: all numbers of one kind have one white."""
    if dtype.kind == 'b':
        return 'booleans'
    if dtype.kind == 'u' and dtype.itemsize <= 2:
        return f'uint{8 * dtype.itemsize}'
    return 'floats' if dtype.kind == 'f' else 'integers'


def decode(path: str | Path | BinaryIO, conversion: Conversion) -> Converted:
    """Returns the Converted of an image file of any mode and format that Pillow reads.

    Its rules are: `from_MODE`, `resized`, `from_16_bit_colour` (of which Pillow reads the upper 8
    bits), `without_metadata` (they are damaged or too large) and `without_end` (a whole picture,
    but no end of the JPEG file).

    Args:
        path: of the file, or the open file.
        conversion: Conversion with `channels` set; without `size`, the image keeps its own.

    Raises:
        Unreadable: not an image, truncated, too large, or of another size with `resize` unset.
        OSError, MemoryError: the file cannot be read now, which says nothing about the image.
    """
    opened = open_file(path, conversion.max_pixels)
    if not opened.is_deep:
        found = _finish(opened.image, conversion)
        return found._replace(rules=opened.rules + found.rules)
    if opened.white:
        conversion = conversion._replace(white=opened.white)
    found = convert(pixels_of(opened.image), conversion, transparent_pixels(opened.image))
    return found._replace(rules=opened.rules + found.rules)


def convert(
    array: np.ndarray, conversion: Conversion, transparent: np.ndarray | None = None
) -> Converted:
    """Returns the Converted of an array.

    Args:
        array: [H, W] or [H, W, C] of C = 1, 3 or 4 (RGB with transparency), of numbers from 0 to
            the one that means white, or of booleans. NaN is a missing pixel.
        conversion: Conversion with `channels` set; without `size`, the image keeps its own. Its
            `white` or `whites` say what means white. Without, it is 255; 65535 for uint16; 1 for
            floats of which none is above 1.
        transparent: bool[H, W], pixels of which a white background is seen.

    Raises:
        Unreadable: values outside their range, missing pixels if those are to be dropped, a shape
            that no image has, or another size with `resize` unset.
    """
    rules = []
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise Unreadable(f'an array of shape {array.shape} is not an image')
    if array.dtype.kind not in 'buif':
        raise Unreadable(f'pixels are numbers, not {array.dtype.name}')
    # A white above 255 is meant for wider numbers.
    if array.dtype != np.uint8 or 0 < conversion.white < 255:
        rules.append(f'from_{array.dtype.name}')
        if array.dtype.kind == 'f' and np.isnan(array).any():
            rules.append('missing_pixels')
        array = _to_uint8(array, conversion)
    if transparent is not None:
        array[transparent] = 255
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    found = _finish(image, conversion)
    return found._replace(rules=rules + found.rules)


def _to_uint8(array, conversion):
    missing = np.isnan(array) if array.dtype.kind == 'f' else np.zeros(array.shape, bool)
    if missing.any() and conversion.missing_pixels == 'drop':
        raise MissingPixels(f'{int(missing.sum())} missing pixels')
    if missing.all():
        raise Unreadable('all pixels are missing')
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    white = _white(array.dtype, high, conversion)
    scaled = array.astype(np.float64) * (255 / white)
    # What rounds to black or to white is no more than an error of rounding.
    if not (low * 255 / white >= -0.5 and high * 255 / white < 255.5):
        raise Unreadable(
            f'{array.dtype.name} values from {low:g} to {high:g}; expected 0 to {white:g}'
        )
    if missing.any():
        scaled[missing] = FILL[conversion.missing_pixels](scaled)
    return np.rint(scaled).astype(np.uint8)


def _white(dtype, high, conversion):
    kind = kind_of(dtype)
    if kind == 'booleans':
        return 1
    by_type = {'uint16': WHITE_16, 'floats': 1 if high <= ONE else 255}.get(kind, 255)
    return conversion.white or conversion.whites.get(kind, by_type)


def _finish(image, conversion):
    """Returns the Converted of a Pillow image of 8 bits."""
    mode = {1: 'L', 3: 'RGB'}[conversion.channels]
    rules = [] if image.mode == mode else [f'from_{image.mode.lower()}']
    if conversion.size not in (None, (image.height, image.width)):
        rules.append('resized')
    raw_shape = (image.height, image.width, channels_of(image))
    return Converted(_resize(_opaque(image, mode), conversion), rules, raw_shape)


def channels_of(image: Image.Image) -> int:
    """Returns 1 for a Pillow image that is grey by its mode, else 3."""
    return 1 if Image.getmodebase(image.mode) == 'L' else 3


def _opaque(image, mode):
    """Returns a Pillow image in a mode; transparent pixels show a white background."""
    if 'A' in image.getbands() or 'transparency' in image.info:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert(mode)


def _resize(image, conversion):
    """Returns a Pillow image of mode L or RGB as uint8[height, width, C]."""
    height, width = conversion.size or (image.height, image.width)
    if (image.height, image.width) != (height, width):
        if not conversion.resize:
            raise WrongSize(
                f'{image.height}x{image.width} pixels where {height}x{width} are expected; '
                "set --config.data.resize to 'stretch', 'crop' or 'pad'"
            )
        image = RESIZE[conversion.resize](image, (width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
