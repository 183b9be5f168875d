"""Files that every viewer shows although something beside their pixels is odd, built by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from neptune_jax.data.sources import decoding, images, metadata
from neptune_jax.data.sources.images import Conversion, Unreadable

SMOOTH = np.add.outer(np.arange(40), np.arange(32)).astype(np.uint8)[..., None] + np.uint8(
    [0, 50, 99]
)
TURNED = np.rot90(SMOOTH, -1)  # as orientation 6 says
LONG = b'x' * 3_000_000  # more than Pillow reads of a compressed text


def chunk(kind, content, damage=0):
    body = kind + content
    return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body) ^ damage)


def png(pixels, before=b'', after=b'', bits=8, colour=2):
    """A PNG without filters (PNG, 11.2): `pixels` as the numbers of its channels."""
    header = struct.pack('>IIBBBBB', pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0)
    if bits < 8:
        digits = np.unpackbits(pixels.astype(np.uint8)[..., None], axis=-1)[..., -bits:]
        rows = np.packbits(digits.reshape(len(pixels), -1), axis=1)
    else:
        rows = pixels.astype(f'>u{bits // 8}')
    content = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
    start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + before
    return start + chunk(b'IDAT', content) + after + chunk(b'IEND', b'')


def jpeg(pixels=SMOOTH, segment=b'', **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG', quality=95, **options)
    return file.getvalue()[:2] + segment + file.getvalue()[2:]


def segment(marker, content):
    return b'\xff' + bytes([marker]) + struct.pack('>H', len(content) + 2) + content


def exif(*entries, order='<', entry_count=None):
    """An EXIF block of (tag, type, count, four bytes)."""
    start = {'<': b'II*\0', '>': b'MM\0*'}[order] + struct.pack(order + 'I', 8)
    count = struct.pack(order + 'H', entry_count or len(entries))
    table = b''.join(struct.pack(order + 'HHI', *entry[:3]) + entry[3] for entry in entries)
    return b'Exif\0\0' + start + count + table + bytes(4)


def short(value, order='<'):
    return struct.pack(order + 'HH', value, 0)


def long(value, order='<'):
    return struct.pack(order + 'I', value)


TURN = (0x0112, 3, 1, short(6))


def decode(content, channels=3):
    return images.decode(io.BytesIO(content), Conversion(channels=channels))


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize(
    'entries',
    {
        'nothing else': lambda o: [],
        'a text that lies outside': lambda o: [(0x010F, 2, 20, long(99_999, o))],
        'a text without end': lambda o: [(0x010F, 2, 2**32 - 1, long(8, o))],
        'an unknown type': lambda o: [(0x010F, 99, 1, b'abcd')],
        'a resolution as text': lambda o: [(0x011A, 2, 4, b'72\0\0')],
        'a resolution as bytes': lambda o: [(0x011A, 7, 4, b'72\0\0')],
        'a program as a float': lambda o: [(0x0131, 11, 1, b'\0\0\x80\x7f')],
        'a directory that lies outside': lambda o: [(0x8769, 4, 1, long(88_888, o))],
    }.items(),
    ids=lambda pair: pair[0],
)
def test_the_orientation_is_found_beside_odd_entries(order, entries):
    turn = (0x0112, 3, 1, short(6, order))
    block = exif(*sorted([*entries[1](order), turn]), order=order)
    found = decode(jpeg(segment=segment(0xE1, block)))[0]
    np.testing.assert_allclose(found, TURNED, atol=8)
    np.testing.assert_array_equal(decode(png(SMOOTH, chunk(b'eXIf', block[6:])))[0], TURNED)
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, 'WEBP', lossless=True, exif=block)
    np.testing.assert_array_equal(decode(file.getvalue())[0], TURNED)


@pytest.mark.parametrize(
    ('block', 'expected'),
    [
        (exif((0x0112, 4, 1, long(8))), 8),
        (exif((0x0112, 1, 1, b'\x03\0\0\0')), 3),
        (exif((0x0112, 3, 2, short(6)[:2] * 2)), 6),
        (exif(TURN, entry_count=300), 6),
        (exif((0x0112, 3, 1, short(9))), None),
        (exif((0x0112, 3, 1, short(0))), None),
        (exif((0x0112, 3, 9, long(9_999))), None),
        (exif((0x0112, 3, 3, long(26))) + short(6) * 2, 6),  # behind the table
        (exif((0x0112, 2, 4, b'6\0\0\0')), None),
        (exif(), None),
        (b'Exif\0\0' + exif(TURN), 6),
        (b'Exif\0\0II*\0' + long(5000), None),
        (b'Exif\0\0II*\0' + long(8), None),
        (b'Exif\0\0nothing of the kind', None),
        (b'', None),
    ],
)
def test_orientations(block, expected):
    assert metadata.orientation(block) == expected
    upright = SMOOTH if expected is None else None
    for content in (png(SMOOTH, chunk(b'eXIf', block[6:])), jpeg(segment=segment(0xE1, block))):
        found = decode(content)[0]
        if upright is not None:
            np.testing.assert_allclose(found, upright, atol=8)


def test_each_orientation_turns_as_the_standard_says():
    # What the first row and the first column of the stored pixels are (EXIF 2.32, 4.6.4 A).
    marked = np.zeros((2, 3), np.uint8)
    marked[0, 0], marked[0, 2], marked[1, 0] = 1, 2, 3
    corners = {1: (1, 2, 3), 2: (2, 1, 0), 3: (0, 3, 2), 4: (3, 0, 1)}
    corners |= {5: (1, 3, 2), 6: (3, 1, 0), 7: (0, 2, 3), 8: (2, 0, 1)}
    for number, (top_left, top_right, bottom_left) in corners.items():
        block = exif((0x0112, 3, 1, short(number)))[6:]
        found = decode(png(marked, chunk(b'eXIf', block), colour=0), channels=1)[0][..., 0]
        assert found.shape == ((2, 3) if number < 5 else (3, 2))
        assert (found[0, 0], found[0, -1], found[-1, 0]) == (top_left, top_right, bottom_left)


@pytest.mark.parametrize(
    'odd',
    {
        'a long compressed text': chunk(b'zTXt', b'Comment\0\0' + zlib.compress(LONG)),
        'a long international text': chunk(b'iTXt', b'a\0\1\0\0\0' + zlib.compress(LONG)),
        'texts of 72 MB': chunk(b'tEXt', b'Comment\0' + LONG) * 24,
        'a large colour profile': chunk(b'iCCP', b'profile\0\0' + zlib.compress(LONG)),
        'a colour profile without content': chunk(b'iCCP', b''),
        'an unknown compression': chunk(b'iCCP', b'profile\0\1' + zlib.compress(b'x')),
        'a wrong checksum': chunk(b'tEXt', b'Comment\0abc', damage=1),
        'a wrong checksum of gamma': chunk(b'gAMA', struct.pack('>I', 45455), damage=1),
        'a short chunk': chunk(b'pHYs', b'ab'),
        'a short animation': chunk(b'acTL', b''),
        'a transparent colour cut short': chunk(b'tRNS', b'\0'),
        'a wrong checksum of the transparent colour': chunk(b'tRNS', bytes(6), damage=1),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_png_is_read_without_what_is_odd_in_it(odd):
    image, rules, _ = decode(png(SMOOTH, odd[1]))
    np.testing.assert_array_equal(image, SMOOTH)
    assert rules == ['without_metadata']
    # What the picture depends on is kept.
    turned = decode(png(SMOOTH, odd[1] + chunk(b'eXIf', exif(TURN)[6:])))[0]
    np.testing.assert_array_equal(turned, TURNED)
    if 'transparent' not in odd[0]:
        seen = chunk(b'tRNS', struct.pack('>HHH', *SMOOTH[2, 3]))
        white = np.where((SMOOTH[2, 3] == SMOOTH).all(axis=-1, keepdims=True), 255, SMOOTH)
        np.testing.assert_array_equal(decode(png(SMOOTH, odd[1] + seen))[0], white)


def test_a_long_text_after_the_pixels():
    text = chunk(b'zTXt', b'Comment\0\0' + zlib.compress(LONG))
    np.testing.assert_array_equal(decode(png(SMOOTH, after=text))[0], SMOOTH)


def test_damage_to_the_pixels_is_no_odd_metadata():
    content = bytearray(png(SMOOTH, chunk(b'pHYs', b'ab')))
    content[-20] ^= 1  # in IDAT
    with pytest.raises(Unreadable):
        decode(content)
    with pytest.raises(Unreadable):
        decode(png(SMOOTH, chunk(b'pHYs', b'ab'))[:-40])
    with pytest.raises(Unreadable):
        decode(jpeg(segment=segment(0xEE, b'Adobe'))[:-200])


@pytest.mark.parametrize(
    'odd',
    {
        'a short Adobe segment': segment(0xEE, b'Adobe'),
        'a short JFIF segment': segment(0xE0, b'JFIF'),
        'a short Photoshop segment': segment(0xED, b'Photoshop 3.0\x008BIM\4\4'),
        'half a colour profile': segment(0xE2, b'ICC_PROFILE\0'),
        'stray zeros': b'\0\0',
        'stray bytes': b'\0\xff\xff',
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_jpeg_is_read_without_what_is_odd_in_it(odd):
    np.testing.assert_array_equal(decode(jpeg(segment=odd[1]))[0], decode(jpeg())[0])
    turned = decode(jpeg(segment=odd[1] + segment(0xE1, exif(TURN))))[0]
    np.testing.assert_array_equal(turned, np.rot90(decode(jpeg())[0], -1))


@pytest.mark.parametrize('noise', [False, True])
def test_a_jpeg_whose_end_alone_is_missing(noise):
    pixels = np.random.default_rng(0).integers(0, 256, SMOOTH.shape) if noise else SMOOTH
    content = jpeg(pixels.astype(np.uint8))
    assert content.endswith(metadata.JPEG_END)
    for missing in (1, 2):
        image, rules, _ = decode(content[:-missing])
        np.testing.assert_array_equal(image, decode(content)[0])
        assert rules == ['without_end']
    for missing in (*range(3, 30), 100, len(content) // 3, len(content) // 2):
        with pytest.raises(Unreadable, match=r'runcated'):
            decode(content[:-missing])
    # Where a scan of a progressive file ends, no byte says whether another one follows.
    progressive = jpeg(pixels.astype(np.uint8), progressive=True)
    for missing in range(2, len(progressive) - 400, 7):
        with pytest.raises(Unreadable):
            decode(progressive[:-missing])


def test_the_first_picture_of_a_file_of_several():
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(
        file, 'MPO', quality=95, save_all=True, append_images=[Image.fromarray(SMOOTH[::-1])]
    )
    found = decode(file.getvalue())[0]
    np.testing.assert_array_equal(found, decode(jpeg())[0])
    np.testing.assert_array_equal(decode(file.getvalue()[:-300])[0], found)  # in the second one


def test_the_colour_transform_of_a_jpeg_survives():
    ink = Image.fromarray(np.tile(np.uint8([0, 100, 200, 50]), (16, 16, 1)), 'CMYK')
    file = io.BytesIO()
    ink.save(file, 'JPEG', quality=95)
    plain = file.getvalue()
    odd = plain[:2] + segment(0xE2, b'ICC_PROFILE\0') + plain[2:]
    image, rules, _ = decode(odd)
    np.testing.assert_array_equal(image, decode(plain)[0])
    assert rules == ['without_metadata', 'from_cmyk']
    # Red, green and blue with the numbers that JFIF has for another colour space: Adobe tells.
    plain = jpeg(keep_rgb=True).replace(b'R\x11\0G\x11\0B\x11\0', b'\1\x11\0\2\x11\0\3\x11\0')
    plain = plain.replace(b'\3R\0G\0B\0', b'\3\1\0\2\0\3\0')
    np.testing.assert_allclose(decode(plain)[0], SMOOTH, atol=3)
    odd = plain[:2] + segment(0xE2, b'ICC_PROFILE\0') + plain[2:]
    np.testing.assert_allclose(decode(odd)[0], SMOOTH, atol=3)


def test_bytes_after_the_end_do_no_harm():
    np.testing.assert_array_equal(decode(png(SMOOTH) + b'more' * 100)[0], SMOOTH)
    np.testing.assert_array_equal(decode(jpeg() + b'\xff\xd8more')[0], decode(jpeg())[0])
    for kind, options in (('GIF', {}), ('WEBP', {'lossless': True}), ('BMP', {}), ('TIFF', {})):
        file = io.BytesIO()
        Image.fromarray(SMOOTH[..., 0]).save(file, kind, **options)
        np.testing.assert_array_equal(
            decode(file.getvalue() + b'more')[0], np.stack([SMOOTH[..., 0]] * 3, axis=-1)
        )


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_shows_a_white_page(bits):
    white = 2**bits - 1
    grey = np.random.default_rng(0).integers(0, white, (6, 5), endpoint=True)
    grey[0, :2] = grey[1, 1] = white // 2
    grey[0, 2] = (white // 2) ^ 1
    content = png(grey, chunk(b'tRNS', struct.pack('>H', white // 2)), bits=bits, colour=0)
    expected = np.where(grey == white // 2, 255, np.rint(grey * 255 / white))
    for channels in (1, 3):
        found = decode(content, channels)[0]
        np.testing.assert_array_equal(found, np.stack([expected] * channels, axis=-1))


def test_the_transparent_colour_of_16_bits():
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 5, 3))
    pixels[1, 2] = pixels[3, 3] = (20_000, 40_000, 60_000)
    content = png(pixels, chunk(b'tRNS', struct.pack('>HHH', *pixels[1, 2])), bits=16)
    image, rules, _ = decode(content)
    expected = pixels >> 8
    expected[1, 2] = expected[3, 3] = 255
    np.testing.assert_array_equal(image, expected)
    assert rules == ['from_16_bit_colour']


def test_16_bits_in_the_other_byte_order_and_in_formats_that_scale_them():
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 5)).astype(np.uint16)
    expected = np.rint(deep / 257)[..., None]
    file = io.BytesIO()
    Image.fromarray(deep.astype('>u2')).save(file, 'TIFF')
    tiff = file.getvalue()
    assert tiff.startswith(b'MM')
    np.testing.assert_array_equal(decode(tiff, 1)[0], expected)
    pgm = b'P5\n5 6\n65535\n' + deep.astype('>u2').tobytes()
    image, rules, _ = decode(pgm, 1)
    np.testing.assert_array_equal(image, expected)
    assert rules == ['from_uint16']
    twelve = (deep >> 4).astype(np.int64)
    pgm = b'P5\n5 6\n4095\n' + twelve.astype('>u2').tobytes()
    for white in (0, 999):  # the white of others does not count
        found = images.decode(io.BytesIO(pgm), Conversion(channels=1, white=white))[0]
        np.testing.assert_allclose(found[..., 0], twelve * 255 / 4095, atol=0.51)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, 'JPEG2000', irreversible=False)
    np.testing.assert_array_equal(decode(file.getvalue(), 1)[0], expected)


def test_an_error_of_the_system_is_no_damage(tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        breaks = True

        def read(self, *args):
            if self.breaks:
                self.breaks = False
                raise OSError(5, 'Input/output error')
            return super().read(*args)

    file = Broken(png(SMOOTH))
    with pytest.raises(OSError, match='Input/output error'):
        decoding.open_image(file, 10**6)
    file.seek(0)
    assert decoding.open_image(file, 10**6).size == (32, 40)
    with pytest.raises(IsADirectoryError):
        decoding.open_image(tmp_path, 10**6)
