"""Files of every mode as Pillow writes them, damaged ones, and arrays of every type."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from neptune_jax.data.sources import images
from neptune_jax.data.sources.images import Conversion, Unreadable

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
ALPHA = RNG.integers(0, 256, (6, 5)).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(40), np.arange(32)).astype(np.uint8)[..., None] + np.uint8(
    [0, 50, 99]
)
TO_GREY, TO_COLOUR = Conversion(channels=1), Conversion(channels=3)


@pytest.fixture
def save(tmp_path):
    """Saves an array or a Pillow image under a name, and returns the path."""

    def save(image, name, **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def decode(path, conversion):
    return images.decode(path, conversion)[0]


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


@pytest.mark.parametrize('ending', ['png', 'bmp', 'gif'])
def test_grey_files_are_read_exactly(save, ending):
    path = save(GREY, f'image.{ending}')
    np.testing.assert_array_equal(decode(path, TO_GREY), GREY[..., None])
    np.testing.assert_array_equal(decode(path, TO_COLOUR), np.stack([GREY] * 3, axis=-1))


@pytest.mark.parametrize(
    ('ending', 'options'), [('png', {}), ('bmp', {}), ('webp', {'lossless': 1})]
)
def test_colour_files_are_read_exactly(save, ending, options):
    path = save(COLOUR, f'image.{ending}', **options)
    np.testing.assert_array_equal(decode(path, TO_COLOUR), COLOUR)
    luma = COLOUR @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    np.testing.assert_allclose(decode(path, TO_GREY)[..., 0], luma, atol=1)


@pytest.mark.parametrize('ending', ['png', 'bmp', 'gif'])
def test_a_palette_is_looked_up(save, ending):
    palette = RNG.integers(0, 256, (16, 3)).astype(np.uint8)
    numbers = RNG.integers(0, 16, (6, 5)).astype(np.uint8)
    image = Image.fromarray(numbers)
    image.putpalette(palette.tobytes())
    assert image.mode == 'P'
    path = save(image, f'image.{ending}')
    np.testing.assert_array_equal(decode(path, TO_COLOUR), palette[numbers])


def test_black_and_white(save):
    path = save(GREY > 99, 'image.png')
    assert mode_of(path) == '1'
    np.testing.assert_array_equal(decode(path, TO_GREY)[..., 0], (GREY > 99) * 255)


def test_sixteen_bits_become_eight(save):
    deep = RNG.integers(0, 2**16, (6, 5)).astype(np.uint16)
    path = save(deep, 'image.png')
    assert mode_of(path) == 'I;16'
    np.testing.assert_array_equal(decode(path, TO_GREY)[..., 0], np.rint(deep / 257))


@pytest.mark.parametrize('base', [GREY[..., None], COLOUR])
def test_what_is_transparent_shows_a_white_page(save, base):
    alpha = ALPHA[..., None] / 255
    expected = np.broadcast_to(alpha * base + (1 - alpha) * 255, (6, 5, 3))
    array = np.concatenate([base, ALPHA[..., None]], axis=-1)
    path = save(array, 'image.png')
    assert mode_of(path) in ('LA', 'RGBA')
    np.testing.assert_allclose(decode(path, TO_COLOUR), expected, atol=1)
    if base is COLOUR:
        image, rules, _ = images.convert(array, TO_COLOUR)
        np.testing.assert_allclose(image, expected, atol=1)
        assert rules == ['from_rgba']


def test_a_transparent_colour_of_a_palette_too(save):
    image = Image.fromarray(np.uint8([[0, 1]]))
    image.putpalette([10, 20, 30, 40, 50, 60])
    for name in ('image.png', 'image.gif'):
        found = decode(save(image, name, transparency=1), TO_COLOUR)
        np.testing.assert_array_equal(found, [[[10, 20, 30], [255, 255, 255]]])


def test_jpeg(save):
    found = decode(save(SMOOTH, 'image.jpg', quality=95), TO_COLOUR)
    np.testing.assert_allclose(found, SMOOTH, atol=6)
    ink = np.tile(np.uint8([0, 100, 200, 50]), (16, 16, 1))  # cyan, magenta, yellow, black
    path = save(Image.fromarray(ink, 'CMYK'), 'print.jpg', quality=95)
    paper = 255 * (1 - np.array([0, 100, 200]) / 255) * (1 - 50 / 255)
    np.testing.assert_allclose(decode(path, TO_COLOUR)[8, 8], paper, atol=3)


@pytest.mark.parametrize(('orientation', 'turns'), [(3, 2), (6, -1), (8, 1)])
def test_exif_says_how_to_turn_a_photograph(save, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.rot90(SMOOTH, turns)
    found = decode(save(SMOOTH, 'image.png', exif=exif), TO_COLOUR)
    np.testing.assert_array_equal(found, expected)
    found = decode(save(SMOOTH, 'image.jpg', exif=exif, quality=95), TO_COLOUR)
    np.testing.assert_allclose(found, expected, atol=6)


@pytest.mark.parametrize('ending', ['png', 'jpg', 'webp', 'bmp', 'gif'])
def test_a_truncated_file_is_unreadable(save, ending):
    path = save(RNG.integers(0, 256, (40, 30, 3)).astype(np.uint8), f'image.{ending}')
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unreadable, match=r'.'):
        decode(path, TO_COLOUR)


# Pillow would start Ghostscript, if that is installed.
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n'


@pytest.mark.parametrize('content', [b'', b'<html>Not found</html>', EPS])
def test_what_is_no_image_is_unreadable(tmp_path, content):
    (tmp_path / 'image.png').write_bytes(content)
    with pytest.raises(Unreadable, match='cannot identify image'):
        decode(tmp_path / 'image.png', TO_COLOUR)
    with pytest.raises(FileNotFoundError):  # no damage: the file may be there the next time
        decode(tmp_path / 'nothing.png', TO_COLOUR)


@pytest.mark.parametrize('ending', ['png', 'jpg', 'webp', 'bmp', 'gif'])
def test_damaged_bytes_raise_nothing_else(save, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {'exif': exif} if ending in ('png', 'jpg', 'webp') else {}
    content = save(SMOOTH, f'image.{ending}', **options).read_bytes()
    conversion = Conversion(size=(8, 8), channels=1, resize='stretch', max_pixels=10**6)
    found = set()
    for _ in range(100):
        damaged = bytearray(content)
        for place in RNG.integers(0, len(content), 4):
            damaged[place] = RNG.integers(256)
        try:
            assert decode(io.BytesIO(damaged), conversion).shape == (8, 8, 1)
            found.add('readable')
        except Unreadable as error:
            assert '\n' not in str(error)
            found.add('unreadable')
    assert 'unreadable' in found


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, save):
    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    path = tmp_path / 'bomb.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b''))
    with pytest.raises(Unreadable, match=r'100000x100000 pixels .* data.clean.max_pixels=50000000'):
        decode(path, TO_COLOUR)
    path = save(GREY, 'image.png')
    assert decode(path, TO_GREY._replace(max_pixels=30)).shape == (6, 5, 1)
    with pytest.raises(Unreadable, match=r'5x6 pixels are more than data.clean.max_pixels=29'):
        decode(path, TO_GREY._replace(max_pixels=29))


def test_resizing(save):
    halves = np.zeros((20, 40), np.uint8)
    halves[:, 20:] = 200
    path = save(halves, 'image.png')

    def resized(how, *size):
        conversion = Conversion(size, channels=1, resize=how)
        np.testing.assert_array_equal(
            images.convert(halves, conversion)[0], decode(path, conversion)
        )
        return decode(path, conversion)[..., 0]

    stretched = resized('stretch', 20, 20)
    assert (stretched[:, :9] == 0).all()
    assert (stretched[:, 11:] == 200).all()
    np.testing.assert_array_equal(resized('crop', 20, 20), halves[:, 10:30])
    np.testing.assert_array_equal(resized('pad', 40, 40), np.pad(halves, ((10, 10), (0, 0))))
    np.testing.assert_array_equal(resized('', 20, 40), halves)
    conversion = Conversion((9, 9), channels=3, resize='pad')
    assert images.decode(path, conversion)[1] == ['from_l', 'resized']
    assert images.convert(halves, conversion)[1] == ['from_l', 'resized']
    with pytest.raises(images.WrongSize, match=r'20x40 pixels where 40x20 .*--config.data.resize'):
        resized('', 40, 20)


@pytest.mark.parametrize('how', ['stretch', 'crop', 'pad'])
def test_a_smaller_image_holds_the_mean_of_the_pixels_not_one_of_them(how):
    def shrunk(array, *size):
        conversion = Conversion(size, channels=1, resize=how)
        return images.convert(np.uint8(array), conversion)[0][..., 0]

    assert shrunk([[0, 200], [0, 200]], 1, 1) == pytest.approx(100, abs=2)
    # A board of black and white squares of a pixel is grey from afar.
    board = np.add.outer(np.arange(64), np.arange(64)) % 2 * 200
    np.testing.assert_allclose(shrunk(board, 8, 8), np.full((8, 8), 100), atol=10)


@pytest.mark.parametrize(('height', 'width'), [(1500, 2), (2, 1500), (9999, 1), (1, 9999)])
def test_a_very_long_image_keeps_a_line_of_its_pixels(height, width):
    grey = np.full((height, width), 200, np.uint8)

    def resized(how, *size):
        return images.convert(grey, Conversion(size, channels=1, resize=how))[0][..., 0]

    for size in ((32, 32), (8, 40), (40, 8)):
        padded = resized('pad', *size)
        line = padded if height > width else padded.T
        lit = np.flatnonzero((line == 200).all(axis=0))
        assert len(lit) == 1
        assert lit[0] in (line.shape[1] // 2 - 1, line.shape[1] // 2)
        assert padded.sum() == 200 * len(line)
        assert (resized('crop', *size) == 200).all()
        assert (resized('stretch', *size) == 200).all()
    assert (resized('pad', height, width) == 200).all()


def test_an_image_of_one_pixel_and_targets_that_are_very_long():
    for how, size in itertools.product(images.RESIZE, [(1, 1), (1, 1500), (1500, 1), (3, 2)]):
        conversion = Conversion(size, channels=1, resize=how)
        for shape in ((1, 1), (2, 2), (7, 3)):
            image = images.convert(np.full(shape, 200, np.uint8), conversion)[0]
            assert image.shape == (*size, 1)
            assert image.max() == 200
            assert how == 'pad' or image.min() == 200


def convert(array, **fields):
    """Returns the pixels of the first channel, and the rules."""
    image, rules, _ = images.convert(array, Conversion(**{'channels': 1} | fields))
    return image[..., 0].tolist(), rules


def test_numbers_become_bytes():
    assert convert(np.uint8([[0, 7, 255]])) == ([[0, 7, 255]], [])
    assert convert(np.uint8([[0, 1, 1]])) == ([[0, 1, 1]], [])
    assert convert(np.uint16([[0, 257, 65535]])) == ([[0, 1, 255]], ['from_uint16'])
    assert convert(np.array([[False, True]])) == ([[0, 255]], ['from_bool'])
    assert convert(np.int64([[0, 1, 255]])) == ([[0, 1, 255]], ['from_int64'])
    assert convert(np.float32([[0, 0.25, 1]])) == ([[0, 64, 255]], ['from_float32'])
    assert convert(np.float64([[0, 1.6, 255]])) == ([[0, 2, 255]], ['from_float64'])
    assert convert(np.float64([[0, 1]]), white=255) == ([[0, 1]], ['from_float64'])
    assert convert(np.array([[0, 257, 65535]], '>u2')) == ([[0, 1, 255]], ['from_uint16'])


@pytest.mark.parametrize(
    ('array', 'white', 'expected'),
    [
        (np.uint16([[0, 16, 2000, 4095]]), 4095, [[0, 1, 125, 255]]),
        (np.int32([[0, 16, 2000, 4095]]), 4095, [[0, 1, 125, 255]]),
        (np.float32([[0, 0.5, 1, 2]]), 2, [[0, 64, 128, 255]]),
        (np.uint8([[0, 1, 1]]), 1, [[0, 255, 255]]),
        (np.uint8([[0, 8, 16]]), 16, [[0, 128, 255]]),
        (np.uint8([[0, 7, 255]]), 4095, [[0, 7, 255]]),  # meant for wider numbers
        (np.array([[False, True]]), 4095, [[0, 255]]),
    ],
)
def test_white_is_what_the_config_says_or_what_all_images_say(array, white, expected):
    assert convert(array, white=white)[0] == expected
    kind = images.kind_of(array.dtype)
    if kind != 'uint8':
        assert convert(array, whites={kind: white, 'other': 9})[0] == expected
        assert convert(array, white=white, whites={kind: 7})[0] == expected


def test_errors_of_rounding_are_within_the_range():
    assert convert(np.float32([[-1e-7, 0.5, 1 + 1e-6]]))[0] == [[0, 128, 255]]
    assert convert(np.float64([[-0.4, 255.4]]))[0] == [[0, 255]]
    with pytest.raises(Unreadable, match=r'from -0.6 to 3; expected 0 to 255'):
        convert(np.float64([[-0.6, 3]]))


def test_missing_pixels():
    array = np.float32([[0, 0.2, 1, np.nan]])
    rules = ['from_float32', 'missing_pixels']
    assert convert(array, missing_pixels='mean') == ([[0, 51, 255, 102]], rules)
    assert convert(array, missing_pixels='median') == ([[0, 51, 255, 51]], rules)
    assert convert(array, missing_pixels='zero') == ([[0, 51, 255, 0]], rules)
    with pytest.raises(images.MissingPixels, match='1 missing pixels'):
        convert(array, missing_pixels='drop')
    with pytest.raises(Unreadable, match='all pixels are missing'):
        convert(np.full((2, 2), np.nan))


def test_the_mean_of_half_precision_does_not_overflow():
    array = np.full((30, 30), 250, np.float16)
    array[0, 0] = np.nan
    assert np.unique(convert(array)[0]).tolist() == [250]


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.array([[-1, 0]]), 'int64 values from -1 to 0; expected 0 to 255'),
        (np.array([[0, 256]]), 'int64 values from 0 to 256; expected 0 to 255'),
        (np.array([[-0.1, 0.5]]), 'float64 values from -0.1 to 0.5; expected 0 to 1'),
        (np.array([[0, 255.5]]), 'float64 values from 0 to 255.5; expected 0 to 255'),
        (np.array([[0, np.inf, np.nan]]), 'float64 values from 0 to inf'),
        (np.array([[-np.inf, np.inf, np.nan]]), 'float64 values from -inf to inf'),
        (np.zeros(4), r'shape \(4,\) is not an image'),
        (np.zeros((4, 4, 2)), r'shape \(4, 4, 2\) is not an image'),
        (np.zeros((0, 4)), r'shape \(0, 4, 1\) is not an image'),
        (np.zeros((2, 4, 4, 3)), r'shape \(2, 4, 4, 3\) is not an image'),
        (np.array([['a']]), 'pixels are numbers, not str'),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, message):
    with pytest.raises(Unreadable, match=message):
        convert(array)


def test_channels_of_arrays():
    image, rules, _ = images.convert(GREY[..., None], TO_COLOUR)
    np.testing.assert_array_equal(image, np.stack([GREY] * 3, axis=-1))
    assert rules == ['from_l']
    image, rules, _ = images.convert(COLOUR, TO_GREY)
    np.testing.assert_allclose(image[..., 0], COLOUR @ [0.299, 0.587, 0.114], atol=1)
    assert rules == ['from_rgb']
