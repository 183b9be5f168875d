"""Fields of `data` and `augment`, and `model.dropout`, by the images that the model sees."""

import jax
import numpy as np
import pytest

from neptune_jax import experiment as experiments
from neptune_jax.data import augment
from tests.fields import regression

EXAMPLES = np.arange(60)
PIXELS = regression.IMAGES[:60] / 255


def standardized(images):
    return (images - PIXELS.mean()) / PIXELS.std()


def assert_seen(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def standardized_per_image():
    deviation = PIXELS.std(axis=(1, 2, 3), keepdims=True)
    # The lower bound of tf.image.per_image_standardization; image 13 has less contrast.
    deviation = np.maximum(deviation, 1 / np.sqrt(20))
    return (PIXELS - PIXELS.mean(axis=(1, 2, 3), keepdims=True)) / deviation


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('mean_std', standardized(PIXELS)),
        ('min_max', (PIXELS - PIXELS.min()) / (PIXELS.max() - PIXELS.min())),
        ('none', PIXELS),
        ('per_image', standardized_per_image()),
        ('mnist', (PIXELS - 0.1307) / 0.3081),
    ],
)
def test_pixels_are_standardised_as_asked(create_plain, seen, name, expected):
    assert_seen(seen(create_plain({'data.standardize': name}), EXAMPLES), expected)


def test_a_crop_pads_with_black_and_not_with_the_mean(create_plain, seen):
    found = seen(create_plain({'augment.crop_padding': 1}), EXAMPLES)
    places = set()
    for image, pixels in zip(found, PIXELS, strict=True):
        padded = standardized(np.pad(pixels, ((1, 1), (1, 1), (0, 0))))
        crops = {(i, j): padded[i : i + 5, j : j + 4] for i in range(3) for j in range(3)}
        nearest = min(crops, key=lambda place: np.abs(image - crops[place]).max())
        assert_seen(image, crops[nearest])
        places.add(nearest)
    assert len(places) == 9


def flipped(images, pixels):
    """Which of some images are flipped; the others are as they were."""
    plain, mirrored = standardized(pixels), standardized(pixels[:, :, ::-1])
    is_flipped = np.abs(images - mirrored).max(axis=(1, 2, 3)) < 1e-2
    expected = np.where(is_flipped[:, None, None, None], mirrored, plain)
    assert_seen(images, expected)
    return is_flipped


def test_alternating_flips_change_with_the_epoch(create_plain, seen):
    experiment = create_plain({'augment.flip': 'alternating'})  # three steps an epoch
    first, second, third, later = (
        flipped(seen(experiment, EXAMPLES, step), PIXELS) for step in (0, 2, 3, 6)
    )
    assert 15 < first.sum() < 45
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(third, ~first)
    np.testing.assert_array_equal(later, first)


def test_random_flips_change_with_the_step_and_the_seed(create_plain, seen):
    first, later, other = (
        flipped(
            seen(create_plain({'augment.flip': 'random', 'seed': seed}), EXAMPLES, step), PIXELS
        )
        for seed, step in ((0, 0), (0, 1), (1, 0))
    )
    for found in (first, later, other):
        assert 15 < found.sum() < 45
    assert 15 < (first != later).sum() < 45
    assert 15 < (first != other).sum() < 45


def test_dropout_is_drawn_anew_for_each_example_step_and_seed(create_plain, seen):
    def dropped(seed, step):
        experiment = create_plain({'seed': seed}, model={'dropout': 0.25})
        found = seen(experiment, EXAMPLES, step)
        kept = np.abs(found) > 1e-4
        assert_seen(found[kept], (standardized(PIXELS) / 0.75)[kept])
        return ~kept

    first, later, other = dropped(0, 0), dropped(0, 1), dropped(1, 0)
    # 1,200 pixels: five standard deviations of a share of .25 are .0625, of .375 they are .07.
    for found in (first, later, other):
        assert found.mean() == pytest.approx(0.25, abs=0.0625)
    for found in (later, other, np.roll(first, 1, axis=0)):
        assert (first != found).mean() == pytest.approx(0.375, abs=0.07)


def by_one(key, image):
    return augment.random_crop(key, image, 1)


def test_what_is_augmented_reaches_the_loss(create, train_step):
    """The functions themselves are tested in tests/data/test_augment.py."""
    fields = {'flip': 'alternating', 'brightness': 0.4, 'cutout': 2, 'mixup': 0.6}
    fields |= {'extra': (f'{__name__}:by_one',)}
    experiment = create({f'augment.{name}': value for name, value in fields.items()} | {'seed': 3})
    state = experiments.init_state(experiment).replace(step=np.int32(4))
    taken = train_step(experiment, state)
    batch = {
        'image': np.float32(regression.IMAGES[taken.examples] / 255),
        'label': np.int32(regression.LABELS[taken.examples]),
        'index': taken.examples,
    }
    change = augment.create_augment(experiment.config.augment, (5, 4, 1))
    batch = jax.jit(change)(batch, jax.random.key(3), np.int32(4), np.int32(1))
    batch = jax.tree.map(np.asarray, batch)
    layer = state.params['Dense_0']

    def loss(images):
        images = standardized(images.astype(np.float64)).reshape(regression.BATCH, -1)
        logits = images @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])
        own, _ = regression.losses(logits, batch['label'])
        other, _ = regression.losses(logits, batch['other_label'])
        weight = batch['label_weight']
        return (weight * own + (1 - weight) * other).mean()

    assert float(taken.values['loss']) == pytest.approx(loss(batch['image']), rel=1e-5)
    unchanged = loss(regression.IMAGES[taken.examples] / 255)
    assert float(taken.values['loss']) != pytest.approx(unchanged, rel=1e-3)


def test_saturation_changes_colours_alone(create_plain, seen, tmp_path):
    colours = np.random.default_rng(1).integers(60, 190, (30, 4, 4, 3)).astype(np.uint8)
    arrays = {}
    for split, part in {'train': slice(20), 'val': slice(20, 25), 'test': slice(25, 30)}.items():
        arrays |= {f'x_{split}': colours[part], f'y_{split}': np.arange(30)[part] % 2}
    np.savez(tmp_path / 'colours.npz', **arrays)
    data = {'name': 'arrays', 'path': str(tmp_path / 'colours.npz'), 'dir': str(tmp_path / 'data')}
    fields = {'data.standardize': 'none', 'augment.saturation': 0.5, 'train.batch_size': 4}
    found = seen(create_plain(fields, data=data), np.arange(20)) * 255
    luma = colours[:20] @ [[0.2989], [0.587], [0.114]]
    np.testing.assert_allclose(found @ [[0.2989], [0.587], [0.114]], luma, atol=1)
    change, before = found - luma, colours[:20] - luma
    factors = (change * before).sum(axis=(1, 2, 3)) / (before**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(change, factors[:, None, None, None] * before, atol=1)
    assert factors.min() >= 0.49
    assert factors.max() <= 1.51
    assert factors.std() > 0.15
