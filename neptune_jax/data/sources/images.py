"""One raw image, a file or an array, to uint8[H, W, C]: mode, type, missing pixels, size."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from neptune_jax.errors import UserError

Image.MAX_IMAGE_PIXELS = None  # data.clean.max_pixels is the limit

# How an image gets another size, and what replaces missing pixels, by their names in a config.
RESIZE = {'stretch': Image.Image.resize, 'crop': ImageOps.fit, 'pad': ImageOps.pad}
FILL = {'mean': np.nanmean, 'median': np.nanmedian, 'zero': lambda _: 0.0, 'drop': None}


class Unreadable(Exception):
    """An image that cannot be used. The message says why."""

    rule = 'unreadable'  # its name in the report


class MissingPixels(Unreadable):
    """An image with missing pixels, where those are to be dropped."""

    rule = 'missing_pixels'


class WrongSize(Unreadable):
    """An image of another size than the others, with `resize` unset."""


class Conversion(NamedTuple):
    """How raw images become those of a data set."""

    size: tuple[int, int] | None = None  # (height, width); None: that of the first image
    channels: int = 0  # 1 (grey) or 3 (RGB); 0: as many as the first image has
    resize: str = ''  # '': refuse other sizes; 'stretch', 'crop' (the centre), 'pad' (with zeros)
    missing_pixels: str = 'mean'  # 'mean' or 'median' of the image's other pixels, 'zero', 'drop'
    max_pixels: int = 50_000_000  # files with more are not decoded: decompression bombs
    white_value: int = 0  # the float that means white, 1 or 255; 0: 255 if a pixel is above 1


def check_image_shape(size: Sequence[int], channels: int) -> None:
    """Raises UserError unless data.image_size and data.channels can be used; () and 0 are unset."""
    if size and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UserError(
            f'data.image_size={tuple(size)} must be a height and a width, such as (32, 32)'
        )
    if channels not in (0, 1, 3):
        raise UserError(f'data.channels={channels} must be 1, 3, or 0: as the first image')


def decode(path: str | Path | BinaryIO, conversion: Conversion) -> tuple[np.ndarray, list[str]]:
    """Returns uint8[H, W, C] for an image file of any mode and format that Pillow reads.

    The second result names the rules that changed the image: `from_MODE` and `resized`.

    Args:
        path: of the file, or the open file.
        conversion: Conversion with `channels` set; without `size`, the image keeps its own.

    Raises:
        Unreadable: not an image, truncated, too large, or of another size with `resize` unset.
    """
    image = open_image(path, conversion.max_pixels)
    if image.mode.startswith('I') or image.mode == 'F':
        return convert(np.asarray(image), conversion)
    return _finish(image, conversion)


def open_image(path: str | Path | BinaryIO, max_pixels: int) -> Image.Image:
    """Returns the Pillow image of a file, decoded and turned upright as its EXIF data say.

    Raises:
        Unreadable: not an image, truncated, or of more than `max_pixels` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow warns of oddities in files that it can read
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    raise Unreadable(
                        f'{image.width}x{image.height} pixels are more than '
                        f'data.clean.max_pixels={max_pixels}'
                    )
                image.load()
                return ImageOps.exif_transpose(image)
    except Unreadable:
        raise
    except Exception as error:  # with damaged bytes Pillow raises exceptions of any class
        raise Unreadable(' '.join(str(error).split()) or repr(error)) from error


def convert(array: np.ndarray, conversion: Conversion) -> tuple[np.ndarray, list[str]]:
    """Returns uint8[H, W, C] for an array, and the names of the rules that changed it.

    Args:
        array: [H, W] or [H, W, C] of C = 1, 3 or 4 (RGB with transparency). uint8 is taken as it
            is; uint16 is divided by 257; booleans, and floats whose white is 1, are multiplied by
            255; other numbers must lie in [0, 255] and are rounded. NaN is a missing pixel.
        conversion: Conversion with `channels` set; without `size`, the image keeps its own. For
            floats, its `white_value` says whether they lie in [0, 1] or in [0, 255].

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
    if array.dtype != np.uint8:
        rules.append(f'from_{array.dtype.name}')
        if array.dtype.kind == 'f' and np.isnan(array).any():
            rules.append('missing_pixels')
        array = _to_uint8(array, conversion)
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    image, more = _finish(image, conversion)
    return image, rules + more


def _to_uint8(array, conversion):
    missing = np.isnan(array) if array.dtype.kind == 'f' else np.zeros(array.shape, bool)
    if missing.any() and conversion.missing_pixels == 'drop':
        raise MissingPixels(f'{int(missing.sum())} missing pixels')
    if missing.all():
        raise Unreadable('all pixels are missing')
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    white_value = 255
    if array.dtype == np.uint16:
        white_value = 65535
    elif array.dtype == bool:
        white_value = 1
    elif array.dtype.kind == 'f':
        white_value = conversion.white_value or (1 if high <= 1 else 255)
    if low < 0 or high > white_value:
        raise Unreadable(
            f'{array.dtype.name} values from {low:g} to {high:g}; expected 0 to {white_value}'
        )
    scaled = array.astype(np.float64) * (255 / white_value)
    if missing.any():
        scaled[missing] = FILL[conversion.missing_pixels](scaled)
    return np.rint(scaled).astype(np.uint8)


def _finish(image, conversion):
    """Returns a Pillow image as uint8[H, W, C], and the rules that changed it."""
    mode = {1: 'L', 3: 'RGB'}[conversion.channels]
    rules = [] if image.mode == mode else [f'from_{image.mode.lower()}']
    if conversion.size not in (None, (image.height, image.width)):
        rules.append('resized')
    return _resize(_opaque(image, mode), conversion), rules


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


def perceptual_hash(images: np.ndarray) -> np.ndarray:
    """Returns bytes32[n], a hash that is often the same after small changes of an image.

    Such changes are of brightness, noise and size. The hash is a "difference hash" (dHash): the
    grey image is averaged to 16x17 cells, and each of the 256 bits says whether a cell is darker
    than its right neighbour. It must be so by a fifth of the cells' standard deviation, so that
    noise does not decide in flat areas.

    Args:
        images: uint8[n, H, W, C].
    """
    cells: np.ndarray = images.mean(axis=-1, dtype=np.float32)
    for axis, count in ((1, 16), (2, 17)):
        size = cells.shape[axis]
        starts = np.arange(count) * size // count
        if size >= count:
            lengths = np.diff(np.append(starts, size)).astype(np.float32)
            shape = [1, 1, 1]
            shape[axis] = count
            cells = np.add.reduceat(cells, starts, axis=axis) / lengths.reshape(shape)
        else:
            cells = np.take(cells, starts, axis=axis)
    margin = 0.2 * cells.std(axis=(1, 2), keepdims=True)
    bits = cells[:, :, 1:] - cells[:, :, :-1] > margin
    return np.packbits(bits.reshape(len(images), -1), axis=-1).view('V32').ravel()
