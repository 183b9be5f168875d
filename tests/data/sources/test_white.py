"""One white for all images: what is guessed, and which data have none."""

import itertools

import numpy as np
import pytest
from PIL import Image

from neptune_jax.data.sources import white, workers
from neptune_jax.data.sources.builder import numbered
from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError
from tests.data.sources.test_decoding import png

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (24, 7, 6)).astype(np.uint8)
PHOTOS[:, 0, :2] = 0, 255
LABELS = np.arange(24) % 3
UNIT = PHOTOS / 255
MASKS = (PHOTOS > 99).astype(np.uint8)
FULL = PHOTOS.astype(np.uint16) * 257 + RNG.integers(-9, 9, PHOTOS.shape).clip(0).astype(np.uint16)
FULL = np.where(PHOTOS == 255, 65535, FULL).astype(np.uint16)
TWELVE = RNG.integers(0, 4096, PHOTOS.shape).astype(np.uint16)
TWELVE[:, 0, :2] = 0, 4095


def found(splits):
    return {split: white.values_of_arrays(arrays) for split, arrays in splits.items()}


def resolve(*splits, **fields):
    names = ('train', 'test')
    values = found(dict(zip(names, splits, strict=False)))
    return white.resolve('a.npz', Conversion(**fields), values, numbered)


@pytest.mark.parametrize(
    ('splits', 'expected', 'noted'),
    [
        ([PHOTOS, PHOTOS], {'uint8': 255}, False),
        ([MASKS], {'uint8': 255}, True),
        ([PHOTOS > 9], {}, False),
        ([UNIT, UNIT.astype(np.float16)], {'floats': 1}, False),
        ([UNIT * (1 + 1e-7)], {'floats': 1}, False),
        ([PHOTOS * 1.0], {'floats': 255}, False),
        ([np.rint(UNIT * 16)], {'floats': 255}, True),
        ([PHOTOS.astype(np.int64)], {'integers': 255}, False),
        ([PHOTOS, UNIT], {'uint8': 255, 'floats': 1}, False),
        ([FULL], {'uint16': 65535}, False),
        ([FULL // 4], {'uint16': 16383}, True),
        ([TWELVE], {'uint16': 4095}, True),
        ([TWELVE // 4], {'uint16': 1023}, True),
        ([PHOTOS.astype(np.uint16)], {'uint16': 255}, True),
        ([(PHOTOS // 4).astype(np.uint16) * 257], {'uint16': 65535}, False),  # 8 bits, widened
        ([TWELVE.astype(np.int32)], {'integers': 4095}, True),
        ([TWELVE.astype(np.float32)], {'floats': 4095}, True),
        ([FULL.astype(np.uint32)], {'integers': 65535}, True),
        ([np.zeros((3, 4, 4))], {'floats': 1}, False),
        ([np.full((3, 4, 4), np.nan)], {}, False),
        ([FULL[:0], FULL], {'uint16': 65535}, False),
    ],
)
def test_white_by_type_and_range(splits, expected, noted):
    conversion, notes = resolve(*splits)
    assert conversion.whites == expected
    assert bool(notes) == noted
    if noted:
        assert f'up to {max(part.max() for part in splits):g}: ' in notes[0]
        assert f'{max(expected.values())} is taken for white; ' in notes[0]


# Splits that contradict each other: their ranges, and the names of both.
CONTRADICTIONS = {
    'floats': (PHOTOS * 1.0, UNIT, '0 to 255', '0 to 1'),
    'floats of two types': (PHOTOS.astype(np.float32), UNIT, '0 to 255', '0 to 1'),
    'uint8': (PHOTOS, MASKS, '0 to 255', '0 to 1'),
    'uint8 of 4 bits': (PHOTOS, PHOTOS // 16, '0 to 255', '0 to 15'),
    'integers': (PHOTOS.astype(np.int64), MASKS.astype(np.int64), '0 to 255', '0 to 1'),
    'integers of 8 and 12 bits': (TWELVE.astype(int), PHOTOS.astype(int), '0 to 4095', '0 to 255'),
    'uint16': (FULL, TWELVE, '0 to 65535', '0 to 4095'),
    'uint16 of 14 and 12 bits': (FULL // 4, TWELVE, '0 to 16383', '0 to 4095'),
    'uint16 of 16 and 14 bits': (FULL, FULL // 4, '0 to 65535', '0 to 16383'),
    'float32 of 16 and 12 bits': (FULL * 1.0, TWELVE * 1.0, '0 to 65535', '0 to 4095'),
    'percent': (UNIT * 100, UNIT, '0 to 100', '0 to 1'),
}


@pytest.mark.parametrize('name', CONTRADICTIONS)
def test_splits_that_contradict_each_other_are_refused(name):
    bright, dark, *ranges = CONTRADICTIONS[name]
    for splits in itertools.chain(
        itertools.product((bright, bright[:5]), (dark, dark[:1])),
        itertools.product((dark, dark[:5]), (bright, bright[:1])),
    ):
        with pytest.raises(UserError, match=r'^a.npz: .*--config.data.white') as caught:
            resolve(*splits)
        for text in ranges:
            assert text.replace('0 to', 'to') in str(caught.value).replace('0 to', 'to')
        # The way out.
        number = max(part.max() for part in splits)
        assert resolve(*splits, white=float(number))[1] == []


@pytest.mark.parametrize(
    ('splits', 'kind'),
    [
        ((FULL, FULL[:3] // 3), 'uint16'),  # the test images are no brighter than a third
        ((TWELVE, TWELVE[:2] - (TWELVE[:2] > 0)), 'uint16'),
        ((PHOTOS, PHOTOS[:2] // 4), 'uint8'),
        ((UNIT, UNIT[:2] / 5), 'floats'),
        ((PHOTOS * 1.0, PHOTOS[:2] / 5), 'floats'),
    ],
)
def test_a_darker_split_is_no_contradiction(splits, kind):
    conversion, _ = resolve(*splits)
    assert conversion.whites == resolve(splits[0])[0].whites
    assert list(conversion.whites) == [kind]


def mixed(one, other, share):
    """The first images of one array, the rest of another."""
    count = round(share * len(one))
    return np.concatenate([one[:count].astype(other.dtype), other[count:]])


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (mixed(UNIT, PHOTOS * 1.0, 1 / 2), r'12 of 24 images of train \(train\[0\], ...\) have fl'),
        (mixed(UNIT, PHOTOS * 1.0, 1 / 6), '4 of 24 .* floats from 0 to 1, the others from 0 to 2'),
        (mixed(UNIT, PHOTOS * 1.0, 5 / 6), '4 of 24 .* floats from 0 to 255, the others from 0 to'),
        (mixed(UNIT, TWELVE * 1.0, 1 / 6), '4 of 24 .* floats from 0 to 1, the others .* 0 to 409'),
        (mixed(PHOTOS, TWELVE.astype(int), 3 / 4), '6 of 24 .* integers .* to 4095, .* 0 to 255;'),
        (mixed(PHOTOS // 16 * np.uint16(257), TWELVE, 1 / 4), '6 of 24 .* uint16 from 0 to 3855, '),
    ],
)
def test_many_images_of_another_scale_are_refused(array, message):
    with pytest.raises(UserError, match=f'^a.npz: {message}'):
        resolve(array)


def test_a_few_odd_images_do_not_decide():
    array = PHOTOS * 1.0
    array[0] = RNG.random(array[0].shape) * 0.9  # black, with a little noise
    assert resolve(array)[0].whites == {'floats': 255}
    array[:2] = RNG.random(array[:2].shape)
    assert resolve(array)[0].whites == {'floats': 255}
    array = UNIT.copy()
    array[:2, 0] = 200  # unreadable: they are named when they are converted
    assert resolve(array)[0].whites == {'floats': 1}
    array[:2, 0] = -3
    assert resolve(array)[0].whites == {'floats': 1}
    array[:20, 0] = np.inf
    assert resolve(array)[0].whites == {'floats': 1}
    assert resolve(PHOTOS * 1.0, PHOTOS[:1] * 1.0)[0].whites == {'floats': 255}


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (UNIT * 2 - 1, r'24 of 24 .* below 0: floats from -1 to 1; .* by \(x \+ 1\) / 2$'),
        (PHOTOS - 128.0, r'floats from -128 to 127; black must be 0: .* by \(x \+ 128\) / 255$'),
        ((PHOTOS.astype(int) - 128).astype(np.int8), 'integers from -128 to 127; black'),
        (UNIT * 1.02, 'floats from 0 to 1.02 are neither from 0 to 1 nor from 0 to 255; rescale'),
        (UNIT * 2.5, 'floats from 0 to 2.5 are neither'),
        (
            FULL * 20,
            'integers up to 1.3107e.06: say with --config.data.white which number is white',
        ),
    ],
)
def test_ranges_that_have_no_white(array, message):
    array = array if array.dtype != np.uint16 else FULL.astype(np.int64) * 20
    with pytest.raises(UserError, match=message):
        resolve(array)


def test_values_of_single_images_are_those_of_the_array():
    holes = UNIT.copy()
    holes[2, 1], holes[3] = np.nan, np.nan
    for array in (
        PHOTOS,
        UNIT,
        holes,
        UNIT / 9,
        PHOTOS * 1.0,
        FULL,
        MASKS * np.uint16(257),
        TWELVE,
    ):
        (kind, expected), *others = white.values_of_arrays(array).items()
        ranges = enumerate(map(white.range_of_array, array))
        single = white.values_of_images(ranges)
        assert not others
        assert list(single) == [kind]
        for column, other in zip(single[kind], expected, strict=True):
            np.testing.assert_array_equal(column, other)
    assert white.values_of_images(enumerate([None, None])) == {}
    assert white.range_of_array(PHOTOS[0] > 9) is None


# -------------------------------------------------------------------------------------- image files


def save(write, **splits):
    write(
        {
            f'{split}/{i % 2}/{i:02}.png': image
            for split, images in splits.items()
            for i, image in enumerate(images)
        }
    )


@pytest.mark.parametrize(
    ('images', 'number', 'before', 'after'),
    [
        (TWELVE, 4095, 17, 256),
        (TWELVE // 4, 1023, 5, 256),
        (PHOTOS.astype(np.uint16), 255, 2, 256),
    ],
)
def test_grey_levels_of_files_before_and_after(read, write, images, number, before, after):
    save(write, train=images)
    levels = {}
    for field in (65535.0, 0.0, float(number)):
        source = read(white=field)
        pixels = source.images()[..., 0]
        order = [int(source.name(i)[-6:-4]) for i in range(len(pixels))]
        expected = np.rint(images[order] * (255 / (field or number)))
        np.testing.assert_array_equal(pixels, expected)
        levels[field] = len(np.unique(pixels))
        assert source.notes == (
            [
                f'uint16 up to {number}: {number} is taken for white; if another number is, set '
                '--config.data.white'
            ]
            if not field
            else []
        )
    assert levels[65535.0] == before
    assert levels[0.0] == levels[number] >= after - 20


def test_files_of_8_and_of_full_16_bits_are_as_they_were(read, write):
    save(write, train=PHOTOS, test=FULL)
    source = read(white=0.0)
    train = source.images()[source.splits['train']]
    assert {image.tobytes() for image in train} == {image.tobytes() for image in PHOTOS}
    test = source.images()[source.splits['test']]
    expected = np.rint(FULL / 257).astype(np.uint8)
    assert {image.tobytes() for image in test} == {image.tobytes() for image in expected}
    assert source.notes == []


def test_splits_of_files_with_more_and_with_fewer_bits_are_refused(refused, write):
    save(write, train=FULL, test=TWELVE)
    refused('raw: uint16 of test lie in 0 to 4095, of train in 0 to 65535, .*--config.data.white')


def test_the_range_of_many_files_is_found_by_worker_processes(read, write, monkeypatch):
    monkeypatch.setattr(workers, 'IN_PROCESS', 3)
    save(write, train=[*TWELVE[:5], *PHOTOS[:3]])
    assert read().notes == [
        'uint16 up to 4095: 4095 is taken for white; if another number is, set --config.data.white'
    ]


def test_16_bit_colour_is_counted_and_refused_if_it_holds_fewer_bits(load, tmp_path):
    def fill(top, alpha=False):
        for split, i in itertools.product(('train', 'test'), range(6)):
            path = tmp_path / f'raw/{split}/{i % 2}/{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = RNG.integers(0, top, (7, 6, 3), endpoint=True)
            opaque = np.full((7, 6, 1), 65535)
            pixels = np.concatenate([pixels, opaque], axis=-1) if alpha else pixels
            path.write_bytes(png(pixels, bits=16, colour=6 if alpha else 2))

    fill(65535)
    rule = load().report['rules']['from_16_bit_colour']
    assert rule['count'] == 12
    assert rule['examples'][0] == 'train/0/0.png'
    with pytest.raises(UserError, match=r'data.white=4095 cannot be used for 12 files of 16-bit'):
        load(white=4095.0)
    for alpha in (True, False):
        fill(4095, alpha)
        message = r'upper 8 bits, and these are 15 at .* to 8 bits, or set'
        with pytest.raises(UserError, match=message):
            load()
    data = load(white=65535.0)
    assert data.read_images(np.arange(12)).max() == 15
    assert 'nearly_black' not in data.report['rules']


def test_splits_of_8_bit_files_are_compared_after_their_preparation(load, write):
    save(write, train=PHOTOS, test=MASKS)
    ranges = 'the pixels of test lie in 0 to 1, those of train in 0 to 255 of 255'
    with pytest.raises(UserError, match=ranges):
        load()
    data = load(white=255.0)
    assert ranges in data.report['notes']
    assert data.report['rules']['nearly_black']['count'] == 24


def test_images_that_are_nearly_black_are_named(load, write):
    save(write, train=[*PHOTOS[:20], *MASKS[20:23], PHOTOS[23] * 0])
    rule = load().report['rules']['nearly_black']
    assert rule['count'] == 4
    assert sorted(rule['examples']) == [
        'train/0/20.png',
        'train/0/22.png',
        'train/1/21.png',
        'train/1/23.png',
    ]


def test_an_image_of_one_colour_is_not_black(load, write):
    red = PHOTOS[:8, ..., None] * np.uint8([1, 0, 0])
    save(write, train=[*red, *PHOTOS[8:]])
    assert 'nearly_black' not in load().report['rules']


def test_a_dark_data_set_is_no_list_of_black_images(load, write):
    save(write, train=MASKS)
    assert 'nearly_black' not in load().report['rules']


def test_white_does_not_concern_files_of_8_bits(read, write):
    save(write, train=PHOTOS)
    np.testing.assert_array_equal(read(white=16.0).images(), read().images())


def test_a_16_bit_file_whose_format_names_its_largest_number(read, tmp_path):
    for i in range(6):
        path = tmp_path / f'raw/train/{i % 2}/{i}.pgm'
        path.parent.mkdir(parents=True, exist_ok=True)
        dark = TWELVE[i] // 9
        path.write_bytes(b'P5\n6 7\n4095\n' + dark.astype('>u2').tobytes())
    source = read()
    first = int(source.name(0)[-5])
    exact = TWELVE[first] // 9 * (255 / 4095)
    np.testing.assert_allclose(source.images()[0, ..., 0], exact, atol=0.51)
    assert source.notes == []
    with Image.open(path) as image:
        assert image.mode == 'I'
