"""Images that a client sent: which ones are refused, and decoding, as in the training."""

import base64
import io
import struct
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException

from neptune_jax.data.sources import metadata
from neptune_jax.errors import one_line
from neptune_jax.inference.predictor import Predictor
from neptune_jax.serving.limits import busy

FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'GIF')  # of several frames the first one is used
NAMES = 'PNG, JPEG, WebP, BMP or GIF'

# A progressive JPEG file of a megabyte may hold thousands of scans, each of which takes as long as
# a picture. Cameras and programs write about ten.
_PNG = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'
_SCAN = b'\xff\xda'
_MAX_SCANS = 1000
_SCANS_OF_LARGEST = 20


def pixels_of(content: bytes, max_pixels: int) -> int:
    """Returns the number of pixels of an image file, which it does not decode.

    Raises:
        HTTPException: 413, more than `max_pixels`; 415, a file of none of the `FORMATS`; 422, a
            damaged one.
    """
    if content.startswith(b'RIFF'):  # Pillow's decoder allocates the pixels when it is opened
        _check_size(_webp_size(content), max_pixels)
    try:
        size = _png_size(content) or _size(content)
    except UnidentifiedImageError as error:
        raise HTTPException(415, f'this is no {NAMES} image') from error
    except Exception as error:  # with damaged bytes Pillow raises exceptions of any class
        raise HTTPException(422, f'a damaged image: {one_line(error)}') from error
    _check_size(size, max_pixels)
    pixels = size[0] * size[1]
    scans = content.count(_SCAN) if content.startswith(b'\xff\xd8') else 0
    if scans > _MAX_SCANS or scans * pixels > _SCANS_OF_LARGEST * max_pixels:
        raise HTTPException(413, f'a JPEG image of {size[0]}x{size[1]} pixels in {scans} scans')
    return pixels


def _png_size(content):
    """Returns (width, height) of a PNG file in a tenth of Pillow's time; None: ask Pillow."""
    if content.startswith(_PNG) and content.count(b'IHDR') == 1:
        width, height = struct.unpack_from('>II', content, len(_PNG))
        return width, height
    return None


def _size(content):
    try:
        return _open(content)
    except UnidentifiedImageError:
        raise
    except Exception:
        # As in the training, damaged metadata do no harm.
        whole = metadata.without_metadata(content)
        if whole is None:
            raise
        return _open(whole)


def _open(content):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of oddities in files that it can read
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.size


def _webp_size(content):
    """Returns (width, height) of the canvas of a WebP file (RFC 9649, 2.5 to 2.7)."""
    kind, start = content[12:16], content[20:30].ljust(10, b'\0')
    if kind == b'VP8X':
        return tuple(int.from_bytes(start[place : place + 3], 'little') + 1 for place in (4, 7))
    if kind == b'VP8 ':
        return tuple(
            int.from_bytes(start[place : place + 2], 'little') & 0x3FFF for place in (6, 8)
        )
    bits = int.from_bytes(start[1:5], 'little')  # VP8L
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _check_size(size, max_pixels):
    width, height = size
    if width * height > max_pixels:
        raise HTTPException(413, f'{width}x{height} pixels are more than {max_pixels:,}')


def read(predictor: Predictor, content: bytes) -> np.ndarray:
    """Returns uint8[H, W, C] of the model's shape for a file that `pixels_of` has passed.

    Raises:
        HTTPException: 422, the image cannot be used.
    """
    try:
        return predictor.read(io.BytesIO(content))
    except MemoryError as error:
        raise busy('there is too little memory for this image') from error
    except Exception as error:  # Unreadable, and whatever Pillow raises for damaged bytes
        raise HTTPException(422, one_line(error)) from error


def as_png(image: np.ndarray) -> str:
    """Returns a PNG file of uint8[H, W, C], C = 1 or 3, in base64."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()
