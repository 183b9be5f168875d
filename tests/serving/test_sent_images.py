"""Which images are refused before they are decoded, and that the others are read as in training."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from starlette.exceptions import HTTPException

from neptune_jax.serving import images
from tests.serving.running import encode

PIXELS = 1_000_000


def png_header(width, height):
    """Returns a PNG file whose header promises an image, without the image."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', checksum)

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IEND', b'')


def webp_header(width, height):
    """Returns the first bytes of a WebP file whose canvas has a size."""
    size = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    return b'RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0' + size + b'ALPH\0\0\0\0'


def gif_header(screen, frame):
    """Returns the first bytes of a GIF file whose first frame is larger than its screen."""
    header = b'GIF89a' + struct.pack('<HHBBB', *screen, 0, 0, 0)
    return header + b',' + struct.pack('<HHHHB', 0, 0, *frame, 0) + b'\x02\x02\x44\x01\x00;'


def refused(content, max_pixels=PIXELS):
    with pytest.raises(HTTPException) as caught:
        images.pixels_of(content, max_pixels)
    return caught.value.status_code, caught.value.detail


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'WEBP', 'BMP', 'GIF'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_the_size_of_each_format_is_known_and_limited_before_decoding(file_format, mode):
    content = encode(Image.new(mode, (300, 200)), file_format)
    assert images.pixels_of(content, 60_000) == 60_000
    assert refused(content, 59_999) == (413, '300x200 pixels are more than 59,999')


@pytest.mark.parametrize('lossless', [True, False])
@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_the_three_kinds_of_webp(lossless, mode):
    content = encode(Image.new(mode, (33, 65)), 'WEBP', lossless=lossless)
    assert images._webp_size(content) == (33, 65)


@pytest.mark.parametrize(
    'content',
    [
        png_header(50_000, 50_000),
        png_header(2**31 - 1, 2**31 - 1),
        webp_header(16_383, 16_383),
        webp_header(2**24, 2**24),
        gif_header((1, 1), (60_000, 60_000)),
        # Pillow takes the second header.
        png_header(1, 1)[:33] + png_header(50_000, 50_000)[8:],
    ],
)
def test_a_decompression_bomb_is_refused(content):
    status, reason = refused(content)
    assert status == 413
    assert 'pixels are more than 1,000,000' in reason


def test_a_jpeg_file_of_very_many_scans_is_refused():
    content = encode(Image.new('L', (2000, 400)), 'JPEG', progressive=True)
    scan = content[content.index(b'\xff\xda') : -2]
    assert images.pixels_of(content, PIXELS) == 800_000
    status, reason = refused(content[:-2] + 30 * scan + content[-2:])
    assert status == 413
    assert reason.startswith('a JPEG image of 2000x400 pixels in ')


@pytest.mark.parametrize('file_format', ['TIFF', 'PPM', 'ICO', 'TGA', 'PCX', 'JPEG2000', 'SGI'])
def test_other_formats_are_refused(file_format):
    content = encode(Image.new('RGB', (32, 32)), file_format)
    assert refused(content) == (415, 'this is no PNG, JPEG, WebP, BMP or GIF image')


@pytest.mark.parametrize('content', [b'', b'<svg/>', b'%!PS-Adobe-3.0 EPSF-3.0', b'\0' * 100])
def test_what_is_no_image_is_refused(content):
    assert refused(content)[0] == 415


def test_damaged_metadata_do_no_harm_as_in_the_training(predictor):
    information = PngImagePlugin.PngInfo()
    information.add_text('comment', 'x' * 2**21, zip=True)  # Pillow refuses texts of a megabyte
    content = encode(Image.new('L', (28, 28), 7), 'PNG', pnginfo=information)
    assert images.pixels_of(content, PIXELS) == 784
    assert (images.read(predictor, content) == 7).all()
    twice = content[:33] + content[8:]  # two headers, so that Pillow is asked
    assert images.pixels_of(twice, PIXELS) == 784


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'WEBP', 'BMP', 'GIF'])
def test_an_image_is_read_as_a_file_on_the_disk_is(predictor, tmp_path, file_format):
    noise = np.random.default_rng(1).integers(256, size=(40, 30, 3), dtype=np.uint8)
    frames = [Image.fromarray(noise), Image.new('RGB', (30, 40))]
    animated = {'save_all': True, 'append_images': frames[1:]} if file_format == 'GIF' else {}
    content = encode(frames[0], file_format, **animated)
    path = tmp_path / f'image.{file_format.lower()}'
    path.write_bytes(content)
    image = images.read(predictor, content)
    np.testing.assert_array_equal(image, predictor.read(path))
    assert image.std() > 10  # not the black second frame


def test_a_truncated_image_has_a_reason(predictor):
    noise = np.random.default_rng(1).integers(256, size=(28, 28), dtype=np.uint8)
    with pytest.raises(HTTPException) as caught:
        images.read(predictor, encode(noise)[:-200])
    assert caught.value.status_code == 422
    assert 'truncated' in caught.value.detail


def test_the_picture_of_what_the_network_sees(pictures):
    file = io.BytesIO(base64.b64decode(images.as_png(pictures[0])))
    np.testing.assert_array_equal(np.asarray(Image.open(file)), pictures[0, ..., 0])
