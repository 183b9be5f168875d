"""One raw image, whatever it is, to uint8[H, W, C]: decoding, types, missing pixels, size.

Light to import: worker processes that decode files need nothing else.
"""

import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # the limit is ours, data.clean.max_pixels

RESIZE = {'stretch': Image.Image.resize, 'crop': ImageOps.fit, 'pad': ImageOps.pad}
FILL = {'mean': np.nanmean, 'median': np.nanmedian, 'zero': lambda _: 0.0, 'drop': None}


class Unreadable(Exception):
    """An image that cannot be used. The message says why."""

    rule = 'unreadable'  # its name in the report


class MissingPixels(Unreadable):
    """An image with missing pixels, where those are to be dropped."""

    rule = 'missing_pixels'


class WrongSize(Unreadable):
    """An image of another size than the others, where nothing says how to resize it."""


class Conversion(NamedTuple):
    """How raw images become those of a data set."""

    size: tuple[int, int] | None = None  # (height, width); None: as the first image
    channels: int = 0  # 1 or 3; 0: as the first image
    resize: str = ''  # '': refuse other sizes; 'stretch', 'crop' (the centre), 'pad' (with zeros)
    missing_pixels: str = 'mean'  # 'mean', 'median' (of the image's others), 'zero', 'drop'
    max_pixels: int = 50_000_000  # more are refused before they are decoded: decompression bombs
    white: int = 0  # in floats: 1 or 255; 0: 255 for an image with pixels above 1


def decode(path, conversion):
    """Returns uint8[H, W, C] for an image file of any mode and format that Pillow reads.

    Also the names of the rules that changed it: `from_MODE` and `resized`.

    Args:
        path: of the file.
        conversion: Conversion with `channels` set; without `size`, the image keeps its own.

    Raises:
        Unreadable: no image, truncated, too large, or of another size with `resize` unset.
    """
    image = open_image(path, conversion.max_pixels)
    if image.mode.startswith('I') or image.mode == 'F':
        return convert(np.asarray(image), conversion)
    return _finish(image, conversion)


def open_image(path, max_pixels):
    """Returns the Pillow image of a file, decoded and turned as its EXIF data say.

    Raises:
        Unreadable: no image, truncated, or of more than `max_pixels` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about oddities of a file that can be read
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
    except Exception as error:  # damaged bytes lead Pillow's decoders to exceptions of any kind
        raise Unreadable(' '.join(str(error).split()) or repr(error)) from error


def convert(array, conversion):
    """Returns uint8[H, W, C] for an array, and the names of the rules that changed it.

    Args:
        array: [H, W] or [H, W, C]. Unsigned 8-bit integers are taken as they are; unsigned 16-bit
            ones are divided by 257; booleans and floats in [0, 1] are multiplied by 255; other
            numbers must lie in [0, 255] and are rounded. For floats, `conversion.white` says which
            of the two ranges it is. NaN is a missing pixel.
        conversion: Conversion with `channels` set; without `size`, the image keeps its own.

    Raises:
        Unreadable: values outside those ranges, missing pixels where those are dropped, a shape
            that is no image, or another size with `resize` unset.
    """
    rules = []
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise Unreadable(f'an array of shape {array.shape} is no image')
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
    white = 255
    if array.dtype == np.uint16:
        white = 65535
    elif array.dtype == bool:
        white = 1
    elif array.dtype.kind == 'f':
        white = conversion.white or (1 if high <= 1 else 255)
    if low < 0 or high > white:
        raise Unreadable(
            f'{array.dtype.name} values from {low:g} to {high:g}; expected 0 to {white}'
        )
    scaled = array.astype(np.float64) * (255 / white)
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
    """Returns a Pillow image in a mode; what is transparent shows a white page."""
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


def perceptual_hash(images):
    """Returns bytes32[n]: a hash that often survives small changes of brightness, noise and size.

    The image in grey is averaged down to 16x17 cells; each of the 256 bits says whether a cell is
    darker than its right neighbour ("dHash"), by a fifth of the cells' standard deviation at least,
    so that noise decides nothing where the image is flat.

    Args:
        images: uint8[n, H, W, C].
    """
    cells = images.mean(axis=-1, dtype=np.float32)
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
