import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage, stats

from neptune_jax.data import augment
from neptune_jax.errors import UserError

OFF = {'flip': 'none', 'extra': (), **dict.fromkeys([*augment.OPERATIONS, *augment.MIXES], 0)}
SINGLE = dict.fromkeys(augment.OPERATIONS, 0.4) | {'flip': 'random', 'rotate': 30.0}
SINGLE |= dict.fromkeys(('crop_padding', 'translate', 'cutout'), 2)
RNG = np.random.default_rng(0)
SURPRISING = 1e-3  # a p-value; seeds are fixed, so a test passes always or never


def create(image_shape, **fields):
    return jax.jit(augment.create_augment(ConfigDict({**OFF, **fields}), image_shape))


def make_batch(images):
    n = len(images)
    label = RNG.integers(0, 10, n).astype(np.int32)
    return {'image': np.float32(images), 'label': label, 'index': np.arange(7, 7 + n, dtype='i4')}


def apply(function, batch, seed=0, step=3, epoch=0):
    key = jax.random.key(seed)
    return jax.tree.map(np.asarray, function(batch, key, np.int32(step), np.int32(epoch)))


def augmented(images, **fields):
    """The images of one call."""
    return apply(create(images.shape[1:], **fields), make_batch(images))['image']


def copies(image, n):
    return np.repeat(image[None], n, axis=0).astype(np.float32)


def which(images, candidates):
    """The number of the one candidate that each image equals."""
    equal = (images[:, None] == np.stack(candidates)[None]).all(axis=(2, 3, 4))
    assert (equal.sum(axis=1) == 1).all()
    return equal.argmax(axis=1)


def assert_uniform(numbers, count):
    assert stats.chisquare(np.bincount(numbers, minlength=count)).pvalue > SURPRISING


def assert_distributed(values, distribution, *args):
    assert stats.kstest(values, distribution, args=args).pvalue > SURPRISING


@pytest.mark.parametrize('field', ['crop_padding', 'translate'])
def test_every_crop_and_every_translation_is_equally_likely(field):
    image = RNG.uniform(0.1, 1, (6, 7, 2)).astype(np.float32)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    crops = [padded[i : i + 6, j : j + 7] for i in range(5) for j in range(5)]
    assert_uniform(which(augmented(copies(image, 2000), **{field: 2}), crops), 25)


def test_random_flips_are_half_of_all():
    image = RNG.uniform(0, 1, (3, 4, 1)).astype(np.float32)
    sides = which(augmented(copies(image, 2000), flip='random'), [image, image[:, ::-1]])
    assert_uniform(sides, 2)


def test_alternating_flips_are_in_every_second_epoch_whatever_the_step():
    image = RNG.uniform(0, 1, (3, 4, 1)).astype(np.float32)
    function, batch = create(image.shape, flip='alternating'), make_batch(copies(image, 2000))
    sides = [
        which(apply(function, batch, step=step, epoch=epoch)['image'], [image, image[:, ::-1]])
        for step, epoch in [(0, 0), (5, 0), (9, 1), (14, 2)]
    ]
    np.testing.assert_array_equal(sides, [sides[0], sides[0], 1 - sides[0], sides[0]])
    assert_uniform(sides[0], 2)
    other_seed = apply(function, batch, seed=1)['image']
    assert_uniform(which(other_seed, [image, image[:, ::-1]]) ^ sides[0], 2)


@pytest.mark.parametrize('shape', [(9, 9, 2), (6, 11, 1)])
@pytest.mark.parametrize('degrees', [0, 25, 90, -130])
def test_rotation_is_that_of_scipy(shape, degrees):
    image = RNG.uniform(0, 1, shape).astype(np.float32)
    found = augment.rotate(image, jnp.float32(degrees))
    expected = ndimage.rotate(image, degrees, reshape=False, order=1, mode='grid-constant')
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_angles_are_uniform():
    # Interpolation is exact on a ramp, so that the slope along a column tells the angle.
    ramp = np.broadcast_to(np.linspace(0, 1, 11)[None, :, None], (11, 11, 1))
    images = augmented(copies(ramp, 2000), rotate=50.0)
    angles = np.rad2deg(np.arcsin(10 * (images[:, 4, 5, 0] - images[:, 5, 5, 0])))
    assert_distributed(angles, 'uniform', -50, 100)


def test_jitter_blends_as_in_torchvision_and_clips():
    image = RNG.uniform(0, 1, (5, 4, 3)).astype(np.float32)
    luma = image @ np.float32([[0.2989], [0.587], [0.114]])
    for function, other in [('brightness', 0), ('contrast', luma.mean()), ('saturation', luma)]:
        for factor in [0.0, 0.4, 1.9]:
            expected = np.clip(factor * image + (1 - factor) * other, 0, 1)
            found = getattr(augment, function)(image, jnp.float32(factor))
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('field', ['brightness', 'contrast', 'saturation'])
def test_factors_of_jitter_are_uniform(field):
    image = np.array([[[0.4, 0.5, 0.6], [0.3, 0.4, 0.5]]], np.float32)
    images = augmented(copies(image, 2000), **{field: 0.5})
    factors = {
        'brightness': images[:, 0, 0, 0] / 0.4,
        'contrast': (images[:, 0, 0, 0] - images[:, 0, 1, 0]) / 0.1,
        'saturation': (images[:, 0, 0, 2] - images[:, 0, 0, 0]) / 0.2,
    }
    assert_distributed(factors[field], 'uniform', 0.5, 1)


@pytest.mark.parametrize('side', [3, 4])
def test_cutout_zeroes_a_clipped_square_about_any_pixel(side):
    image = RNG.uniform(0.1, 1, (5, 6, 2)).astype(np.float32)
    squares = []
    for top, left in np.ndindex(5, 6):
        rows, columns = (slice(max(0, k - side // 2), k - side // 2 + side) for k in (top, left))
        squares.append(image.copy())
        squares[-1][rows, columns] = 0
    assert_uniform(which(augmented(copies(image, 2000), cutout=side), squares), 30)


def simulated_erasing(height, width):
    """Sides of a rectangle, by the loop of the authors' program."""
    while True:
        area, ratio = RNG.uniform(0.02, 0.4) * height * width, RNG.uniform(0.3, 1 / 0.3)
        h, w = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if h < height and w < width:
            return h, w, RNG.integers(0, height - h + 1), RNG.integers(0, width - w + 1)


def test_erasing_fills_rectangles_of_the_right_sizes_and_places_with_noise():
    images = augmented(np.full((2000, 20, 24, 2), 2), erase=0.6)  # 2 is no value of the noise
    erased = images != 2
    happened = erased.any(axis=(1, 2, 3))
    assert stats.binomtest(int(happened.sum()), 2000, 0.6).pvalue > SURPRISING
    assert_distributed(images[erased][::100], 'uniform')

    rows, columns = erased.any(axis=(2, 3))[happened], erased.any(axis=(1, 3))[happened]
    sides = rows.sum(axis=1), columns.sum(axis=1)
    full = rows[:, :, None, None] & columns[:, None, :, None]
    np.testing.assert_array_equal(erased[happened], np.broadcast_to(full, erased[happened].shape))
    for sums, line in zip(sides, (rows, columns), strict=True):  # no gaps, so a rectangle
        np.testing.assert_array_equal(np.abs(np.diff(line, prepend=0, append=0)).sum(axis=1), 2)
        assert sums.min() >= 1
    found = np.stack([*sides, rows.argmax(axis=1), columns.argmax(axis=1), sides[0] * sides[1]])
    expected = np.array([simulated_erasing(20, 24) for _ in range(3000)]).T
    for one, other in zip(found, [*expected, expected[0] * expected[1]], strict=True):
        assert stats.ks_2samp(one, other).pvalue > SURPRISING
    # Rounding changes each side by at most half a pixel.
    assert (found[4] + (sides[0] + sides[1] + 1) / 2 >= 0.02 * 480).all()
    assert (found[4] - (sides[0] + sides[1]) / 2 <= 0.4 * 480).all()


def swapped(values):
    return values[np.arange(len(values)) ^ 1]


def test_mixup_blends_the_two_of_a_pair():
    batch = make_batch(RNG.uniform(0, 1, (2000, 2, 3, 1)))
    found = apply(create((2, 3, 1), mixup=0.4), batch)
    weight = found['label_weight']
    assert (weight.dtype, found['other_label'].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(weight, swapped(weight))
    np.testing.assert_array_equal(found['other_label'], swapped(batch['label']))
    np.testing.assert_array_equal(found['label'], batch['label'])
    own = weight[:, None, None, None]
    expected = own * batch['image'] + (1 - own) * swapped(batch['image'])
    np.testing.assert_allclose(found['image'], expected, atol=1e-6)
    assert_distributed(weight[::2], 'beta', 0.4, 0.4)


def simulated_cutmix(height, width, alpha):
    """How many pixels are kept."""
    side, image = np.sqrt(1 - RNG.beta(alpha, alpha)), np.ones((height, width))
    spans = []
    for length in (height, width):
        top = RNG.integers(length) - int(length * side) // 2
        spans.append(slice(max(0, top), max(0, top + int(length * side))))
    image[tuple(spans)] = 0
    return image.sum()


def test_cutmix_swaps_a_rectangle_and_weighs_labels_by_its_pixels():
    batch = make_batch(copies(np.ones((10, 12, 2)), 3000) * np.arange(3000)[:, None, None, None])
    found = apply(create((10, 12, 2), cutmix=0.7), batch)
    kept = found['image'] == batch['image']
    np.testing.assert_array_equal(found['image'][~kept], swapped(batch['image'])[~kept])
    np.testing.assert_allclose(found['label_weight'], kept.mean(axis=(1, 2, 3)), atol=1e-6)
    np.testing.assert_array_equal(kept, swapped(kept))
    np.testing.assert_array_equal(found['other_label'], swapped(batch['label']))
    pasted = ~kept
    rows, columns = pasted.any(axis=(2, 3), keepdims=True), pasted.any(axis=(1, 3), keepdims=True)
    np.testing.assert_array_equal(pasted, np.broadcast_to(rows & columns, pasted.shape))
    expected = [simulated_cutmix(10, 12, 0.7) for _ in range(3000)]
    assert stats.ks_2samp(kept.sum(axis=(1, 2, 3))[::2] // 2, expected).pvalue > SURPRISING


def test_an_example_is_augmented_alike_in_any_place_of_any_batch():
    batch = make_batch(RNG.uniform(0, 1, (16, 8, 9, 3)))
    function = create((8, 9, 3), **SINGLE)
    whole = apply(function, batch)['image']
    order = RNG.permutation(20)[:16]
    more = jax.tree.map(lambda values: np.concatenate([values, values[:4] * 0]), batch)
    part = apply(function, {name: values[order] for name, values in more.items()})['image']
    np.testing.assert_allclose(part[order < 16], whole[order[order < 16]], atol=1e-6)
    for other in [{'seed': 1}, {'step': 4}]:
        changed = apply(function, batch, **other)['image'] != whole
        assert changed.any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(apply(function, batch, epoch=5)['image'], whole)


def test_shards_on_devices_give_what_the_whole_batch_gives():
    batch = make_batch(RNG.uniform(0, 1, (16, 4, 5, 1)))
    function = create((4, 5, 1), flip='random', translate=1, mixup=0.5)
    whole = apply(function, batch | {'extra': np.arange(16)})
    np.testing.assert_array_equal(whole.pop('extra'), np.arange(16))
    shards = {name: values.reshape(4, 4, *values.shape[1:]) for name, values in batch.items()}
    parallel = jax.pmap(function, in_axes=(0, None, None, None))
    for name, values in apply(parallel, shards).items():
        np.testing.assert_allclose(values.reshape(whole[name].shape), whole[name], atol=1e-6)


def test_operations_draw_apart():
    image = RNG.uniform(0.1, 1, (4, 5, 1))
    crops, shifts = (augmented(copies(image, 900), **{f: 1}) for f in ('crop_padding', 'translate'))
    alike = (crops == shifts).all(axis=(1, 2, 3)).sum()
    assert stats.binomtest(int(alike), 900, 1 / 9).pvalue > SURPRISING
    names = ['flip', *augment.OPERATIONS, *augment.MIXES]
    keys = [jax.random.key_data(augment.operation_key(jax.random.key(0), name)) for name in names]
    assert len(np.unique(keys, axis=0)) == len(names)


def test_an_operation_does_not_change_the_draws_of_another():
    batch = make_batch(RNG.uniform(0.3, 0.6, (64, 8, 9, 3)))
    others = {'flip': 'random', 'brightness': 0.2, 'contrast': 0.2}
    holes = [augmented(batch['image'], cutout=3, **fields) == 0 for fields in ({}, others)]
    assert holes[0].any()
    np.testing.assert_array_equal(*holes)


def add_noise(key, image):
    return image + 0.1 * jax.random.uniform(key, image.shape)


def double(key, image):
    del key
    return 2 * image


def test_functions_of_ones_own_come_after_the_others():
    names = tuple(f'{__name__}:{name}' for name in ('add_noise', 'double', 'add_noise'))
    black = np.zeros((6, 3, 4, 1))
    noise = [
        apply(create((3, 4, 1), extra=names[i:], cutout=3), make_batch(black), step=step)['image']
        for i, step in [(0, 3), (2, 3), (0, 4)]
    ]
    twice, once, later = noise
    assert 0.25 < twice.max() < 0.3
    assert 0.05 < once.max() < 0.1  # nothing is black: the noise comes after cutout
    assert len(np.unique(once)) == once.size  # each example has a key of its own
    assert (twice != later).all()  # and each step
    second = twice - 2 * once  # of the second one, whose key is another one
    assert np.abs(second - once).max() > 0.01


def test_a_function_of_ones_own_that_does_not_exist():
    with pytest.raises(UserError, match=r"augment.extra='nowhere:f': cannot import 'nowhere'"):
        create((3, 4, 1), extra=('nowhere:f',))


def test_what_is_off_costs_nothing():
    batch = make_batch(np.zeros((3, 4, 4, 1)))
    for fields in [OFF, OFF | {'saturation': 0.5}]:  # which a grey image does not have
        assert augment.create_augment(ConfigDict(fields), (4, 4, 1))(batch, None, 0, 0) is batch


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'flip': 'x'}, "augment.flip='x' is unknown; choose one of: none, random, alternating"),
        ({'mixup': 1.0, 'cutmix': 1.0}, 'augment.mixup and augment.cutmix cannot both be on'),
        (
            {'crop_padding': -1},
            'augment.crop_padding=-1 is out of range; give a number from',
        ),
        ({'translate': 5}, 'augment.translate=5 is out of range'),
        ({'cutout': 5}, 'augment.cutout=5 is out of range'),
        ({'rotate': 200.0}, 'augment.rotate=200.0 is out of range'),
        ({'contrast': 1.5}, 'augment.contrast=1.5 is out of range'),
        ({'erase': float('nan')}, 'augment.erase=nan is out of range'),
        ({'mixup': -0.1}, 'augment.mixup=-0.1 is out of range'),
    ],
)
def test_bad_values_are_refused_in_one_line(fields, message):
    with pytest.raises(UserError) as error:
        augment.create_augment(ConfigDict(OFF | fields), (4, 6, 1))
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


def test_an_odd_batch_cannot_be_mixed():
    with pytest.raises(UserError, match=r'augment\.cutmix mixes pairs, but a device has 3'):
        apply(create((4, 4, 1), cutmix=1.0), make_batch(np.zeros((3, 4, 4, 1))))
