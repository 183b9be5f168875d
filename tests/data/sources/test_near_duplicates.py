"""Copies that were changed a little are found; other pictures, of many kinds, are not."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import neptune_jax.data.sources
from neptune_jax.data.sources import near_duplicates
from neptune_jax.data.sources.near_duplicates import are_near, sketch
from neptune_jax.testing.pictures import encoded, moved, resized, scaled

RNG = np.random.default_rng(0)
SIDE = 48


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same pictures, whichever tests ran before."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def find(images, digests=None, order=None):
    """The earlier image that each one duplicates, or -1."""
    digests = (
        np.array([image.tobytes() for image in images], object) if digests is None else digests
    )
    numbers = np.unique(digests, return_inverse=True)[1]
    order = np.arange(len(images)) if order is None else np.array(order)
    found = near_duplicates.find(sketch(images), numbers, order, lambda examples: images[examples])
    return found.tolist()


@pytest.fixture(scope='module')
def clothes():
    """500 different pictures of Fashion-MNIST."""
    folder = Path(neptune_jax.data.sources.__file__).parent / 'fashion_mnist_mini'
    content = gzip.decompress((folder / 't10k-images-idx3-ubyte.gz').read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28, 1)


def photos(count):
    """Smooth random pictures with detail of several sizes; like most, less varied in colour."""

    def layer(cells, channels):
        shape = (count, cells, cells, channels)
        values = RNG.integers(0, 256, shape).astype(np.uint8)
        size = (SIDE, SIDE)
        return np.stack(
            [
                np.asarray(Image.fromarray(each.squeeze()).resize(size, Image.Resampling.BICUBIC))
                for each in values
            ]
        ).reshape(count, SIDE, SIDE, channels)

    grey = 0.4 * layer(3, 1) + 0.3 * layer(6, 1) + 0.15 * layer(12, 1)
    return np.rint(30 + 0.75 * (grey + 0.08 * layer(3, 3))).astype(np.uint8)


CHANGES = {
    'JPEG 90': lambda images: encoded(images, 90),
    'brighter': lambda images: scaled(images, 1.1),
    'darker': lambda images: scaled(images, 0.9),
    'lighter': lambda images: scaled(images, 1, 20),
    'noise': lambda images: scaled(images + RNG.normal(0, 2, images.shape), 1),
    'down': lambda images: moved(images, 1, 0),
    'left': lambda images: moved(images, 0, -1),
    'up and right': lambda images: moved(images, -1, 1),
}


@pytest.mark.parametrize('change', CHANGES)
def test_changed_copies_are_found(clothes, change):
    for originals in (clothes[:150], photos(40)):
        copies = CHANGES[change](originals)
        count = len(originals)
        found = np.array(find(np.concatenate([originals, copies])))
        assert (found[:count] == -1).all()
        right = found[count:] == np.arange(count)
        assert ((found[count:] == -1) | right).all()
        assert right.mean() > 0.9


def test_resized_copies_of_photographs_are_found():
    originals = photos(40)
    for factor in (0.75, 2):
        assert find(np.concatenate([originals, resized(originals, factor)]))[40:] == list(range(40))


def drawn(count, draw):
    images = []
    for _ in range(count):
        image = Image.new('L', (SIDE, SIDE), 255)
        draw(ImageDraw.Draw(image))
        images.append(np.asarray(image)[..., None])
    return np.unique(np.stack(images), axis=0)


def points(count):
    return [tuple(point) for point in RNG.integers(0, SIDE, (count, 2)).tolist()]


def letters(length):
    return ''.join(RNG.choice(list('abcdefghijklmnopqrstuvwxyz'), length))


def horizontal_bars():
    return np.repeat(RNG.integers(0, 256, (200, SIDE, 1, 1)).astype(np.uint8), SIDE, axis=2)


def diagonal_bars():
    across = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    return RNG.integers(0, 256, (200, 2 * SIDE)).astype(np.uint8)[:, across][..., None]


DIFFERENT = {
    'horizontal bars': horizontal_bars,
    'vertical bars': lambda: horizontal_bars().swapaxes(1, 2),
    'diagonal bars': diagonal_bars,
    'one bar': lambda: np.stack(
        [
            np.repeat((np.arange(SIDE) // 3 == place)[:, None, None], SIDE, axis=1) * np.uint8(200)
            for place in range(SIDE // 3)
        ]
    ),
    'a bar in each row': lambda: np.stack(
        [
            np.repeat(np.isin(np.arange(SIDE), place)[:, None, None], SIDE, axis=1) * np.uint8(200)
            for place in np.add.outer(np.arange(SIDE - 5), np.arange(5))
        ]
    ),
    'a small square': lambda: drawn(
        300, lambda draw: [draw.rectangle((x, y, x + 2, y + 2), fill=0) for x, y in points(1)]
    ),
    'strokes': lambda: drawn(200, lambda draw: [draw.line(points(2)) for _ in range(3)]),
    'a word': lambda: drawn(200, lambda draw: draw.text((8, 20), letters(4), fill=0)),
    'text': lambda: drawn(
        200, lambda draw: [draw.text((2, y), letters(7), fill=0) for y in (1, 13, 25, 37)]
    ),
    'flat': lambda: np.repeat(np.arange(256, dtype=np.uint8), SIDE**2).reshape(-1, SIDE, SIDE, 1),
    'noise on grey': lambda: scaled(128 + RNG.normal(0, 3, (200, SIDE, SIDE, 1)), 1),
    'a dot': lambda: drawn(300, lambda draw: draw.point(points(1), fill=0)),
    'photographs': lambda: photos(200),
}


@pytest.mark.parametrize('kind', DIFFERENT)
def test_different_pictures_are_no_near_duplicates(kind):
    images = DIFFERENT[kind]()
    assert len(np.unique(images, axis=0)) == len(images) >= 16
    assert find(images) == [-1] * len(images)


def test_clothes_are_no_near_duplicates_of_each_other(clothes):
    assert find(clothes) == [-1] * len(clothes)


def test_a_small_part_or_another_colour_makes_another_picture():
    (photo,) = photos(1)
    marked, tinted, mirrored = photo.copy(), photo.copy(), photo[:, ::-1]
    marked[20:26, 20:26] = 255 - marked[20:26, 20:26]
    tinted[..., 0], tinted[..., 1] = photo[..., 1], photo[..., 0]
    much_brighter, negative = scaled(photo, 1, 60), 255 - photo
    for other in (marked, tinted, mirrored, much_brighter, negative):
        assert not are_near(photo[None], other[None])[0]
        assert find(np.stack([photo, other])) == [-1, -1]
    # Grey has the same mean of the channels, but it is no picture in colour.
    grey = np.repeat(photo.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert find(np.stack([photo, grey])) == [-1, -1]


def test_a_mark_in_one_cell_and_half_the_contrast_make_another_picture():
    (photo,) = photos(1)
    pixels = photo.astype(float)
    deviation = pixels.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3)).std()
    marked = {}
    for strength in (0.2, 0.6):  # of the deviation of the 16x16 cells; the bound is 0.35
        changed = pixels.copy()
        changed[21:24, 21:24] += strength * deviation
        marked[strength] = scaled(changed, 1)
    assert are_near(photo[None], marked[0.2][None])[0]
    assert not are_near(photo[None], marked[0.6][None])[0]
    for gain, expected in ((0.9, True), (0.8, False)):  # the bound is 1 / 1.15
        changed = scaled((pixels - pixels.mean()) * gain + pixels.mean(), 1)
        assert are_near(photo[None], changed[None])[0] == expected


def test_a_copy_belongs_to_the_first_of_its_kind_that_is_kept():
    first, second = photos(2)
    one, two, far = scaled(first, 1, 10), scaled(first, 1, 20), scaled(first, 1, 40)
    # The last is near the ones between, but not near the first.
    images = np.stack([first, second, one, two, far])
    assert find(images) == [-1, -1, 0, 0, -1]
    assert find(images, order=[4, 3, 2, 1, 0]) == [2, -1, -1, 4, -1]


def test_what_is_near_one_that_is_not_kept_is_compared_with_the_one_that_is():
    (photo,) = photos(1)
    images = np.stack([photo, *(scaled(photo, 1, more) for more in (20, 10, 40))])
    near = np.array([-1, 0, 1, 1])  # the image 1, to which two point, is not kept itself
    near_duplicates._point_to_kept(near, lambda examples: images[examples])
    assert near.tolist() == [-1, 0, 0, -1]


def test_equal_images_are_no_near_duplicates_but_each_copy_of_one_is():
    first, second = photos(2)
    changed = scaled(first, 1, 10)
    images = np.stack([first, first, second, changed, changed, second])
    assert find(images) == [-1, -1, -1, 0, 0, -1]


def test_many_copies_of_one_picture():
    (photo,) = photos(1)
    images = np.stack([scaled(photo + RNG.normal(0, 1, photo.shape), 1) for _ in range(300)])
    assert find(images) == [-1] + [0] * 299


@pytest.mark.parametrize('shape', [(1, 1, 1), (8, 8, 3), (16, 5, 1), (3, 40, 1), (16, 16, 3)])
def test_images_of_any_shape(shape):
    images = RNG.integers(0, 256, (30, *shape)).astype(np.uint8)
    copies = scaled(images, 0.95)
    expected = [-1] * 30 + ([-1] * 30 if shape == (1, 1, 1) else list(range(30)))
    assert find(np.concatenate([images, copies]), np.arange(60)) == expected
    assert find(images[:1]) == [-1]
