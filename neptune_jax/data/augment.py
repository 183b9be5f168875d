"""Augmentation of training batches on the device, inside the compiled training step.

Every draw is keyed by (seed, step, example), so the result depends neither on the number of
devices nor on how a batch is cut into shards. Pixels are in [0, 1]: standardise afterwards.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from neptune_jax.errors import UserError, choose, choose_or_import


def create_augment(config, image_shape):
    """Returns the augmentation of a batch that the `augment` group of a config describes.

    It is a function (batch, seed_key, step, epoch) -> batch, to be traced. `step` and `epoch` are
    int32 scalars; a batch has `image` float32[B, H, W, C], `label` int32[B] and `index` int32[B],
    the example's number in the data set. Other keys pass through. Mixup and CutMix mix examples
    2i and 2i + 1 of the batch, which is this device's share of it, and add `other_label` int32[B]
    and `label_weight` float32[B], the weight of `label`; `other_label` has the rest.

    Args:
        config: the fields are the keys of OPERATIONS and MIXES, 0 for off; `flip`, of FLIPS; and
            `extra`, names 'package.module:name' of functions of one's own from (key, image) to
            image, which come after OPERATIONS.
        image_shape: (H, W, C).

    Raises:
        UserError: a field out of range; in the function, an odd batch to be mixed.
    """
    _check(config, image_shape)
    flip = choose(FLIPS, config.flip, 'augment.flip')
    amounts = {name: config[name] for name in OPERATIONS if config[name]}
    if image_shape[-1] != 3:
        amounts.pop('saturation', None)  # a grey image has none to change
    mixes = {name: config[name] for name in MIXES if config[name]}
    extra = [choose_or_import({}, name, 'augment.extra') for name in config.extra]

    def augment_example(image, index, seed_key, step, epoch):
        key = example_key(seed_key, step, index)
        if flip:
            # As of a step that no run reaches, so the same at every step.
            fixed_key = example_key(seed_key, 2**32 - 1, index)
            image = flip(operation_key(key, 'flip'), operation_key(fixed_key, 'flip'), image, epoch)
        for name, amount in amounts.items():
            image = OPERATIONS[name](operation_key(key, name), image, amount)
        for number, operation in enumerate(extra):
            image = operation(jax.random.fold_in(operation_key(key, 'extra'), number), image)
        return image

    def augment(batch, seed_key, step, epoch):
        if flip or amounts or extra:
            images = jax.vmap(augment_example, (0, 0, None, None, None))(
                batch['image'], batch['index'], seed_key, step, epoch
            )
            batch = {**batch, 'image': images}
        for name, alpha in mixes.items():
            batch = mix_pairs(batch, seed_key, step, name, alpha)
        return batch

    return augment


def example_key(seed_key, step, index):
    """Returns the key for all that is drawn for one example at one step."""
    return jax.random.fold_in(jax.random.fold_in(seed_key, step), index)


def dropout_key(seed_key, step, index):
    """Returns the key for what a network drops of one example at one step."""
    return operation_key(example_key(seed_key, step, index), 'dropout')


def operation_key(key, name):
    """Returns an example's key for one operation, the same whatever else is on."""
    return jax.random.fold_in(key, ('flip', *OPERATIONS, *MIXES, 'dropout', 'extra').index(name))


def random_flip(key, fixed_key, image, epoch):
    """Mirrors an image every second time, by chance."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def alternating_flip(key, fixed_key, image, epoch):
    """Mirrors an image in every second epoch; chance says in which (Jordan, arXiv:2404.00498)."""
    odd_ones = jax.random.bernoulli(fixed_key)
    return jnp.where((epoch % 2 == 1) == odd_ones, image[:, ::-1], image)


def crop(image, corner, padding):
    """Pads an image with zeros and cuts the original size out at `corner`, int32[2]."""
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)


def rotate(image, degrees):
    """Rotates counter-clockwise about the centre; bilinear, with zeros outside."""
    rows, columns = (jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2 for n in image.shape[:2])
    rows, columns = jnp.meshgrid(rows, columns, indexing='ij')
    angle = jnp.deg2rad(degrees)
    source = (
        columns * jnp.sin(angle) + rows * jnp.cos(angle) + (image.shape[0] - 1) / 2,
        columns * jnp.cos(angle) - rows * jnp.sin(angle) + (image.shape[1] - 1) / 2,
    )
    return jax.vmap(lambda channel: map_coordinates(channel, source, order=1), -1, -1)(image)


def brightness(image, factor):
    """Blends with black, as torchvision does; below 1 is darker."""
    return _blend(image, jnp.zeros_like(image), factor)


def contrast(image, factor):
    """Blends with the mean of the grey image, as torchvision does; below 1 is flatter."""
    return _blend(image, grey(image).mean(), factor)


def saturation(image, factor):
    """Blends with the grey image, as torchvision does; below 1 is paler."""
    return _blend(image, grey(image), factor)


def grey(image):
    """Returns [H, W, 1]: luma of RGB (ITU-R BT.601), of other channels their mean."""
    if image.shape[-1] != 3:
        return image.mean(axis=-1, keepdims=True)
    return 0.2989 * image[..., :1] + 0.587 * image[..., 1:2] + 0.114 * image[..., 2:]


def _blend(image, other, factor):
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def rectangle(image_shape, top, left, height, width):
    """Returns bool[H, W, 1], True in a rectangle, of which parts may lie outside the image."""
    rows, columns = jnp.arange(image_shape[0]), jnp.arange(image_shape[1])
    inside_rows = (rows >= top) & (rows < top + height)
    inside_columns = (columns >= left) & (columns < left + width)
    return inside_rows.reshape(-1, 1, 1) & inside_columns.reshape(1, -1, 1)


def random_crop(key, image, padding):
    # Also a random translation, which is a crop out of a frame of zeros.
    return crop(image, jax.random.randint(key, (2,), 0, 2 * padding + 1), padding)


def random_rotation(key, image, largest):
    return rotate(image, jax.random.uniform(key, minval=-largest, maxval=largest))


def random_factor(function):
    """Makes `function` of (image, factor) one of (key, image, amount), which draws the factor."""

    def random_function(key, image, amount):
        return function(image, jax.random.uniform(key, minval=1 - amount, maxval=1 + amount))

    return random_function


def random_cutout(key, image, side):
    """Zeros a square about any pixel, clipped at the border (DeVries and Taylor, 2017)."""
    mask = rectangle(image.shape, *_corner_about_a_pixel(key, image.shape, side, side), side, side)
    return jnp.where(mask, 0, image)


def random_erasing(key, image, probability):
    """Fills a rectangle with noise: RE-R of Zhong et al. (2020), as in the authors' program.

    Of ten draws of a rectangle the first that fits is taken; it is rare that none does.
    """
    height, width, _ = image.shape
    keys = jax.random.split(key, 5)
    area = jax.random.uniform(keys[0], (10,), minval=0.02, maxval=0.4) * (height * width)
    ratio = jax.random.uniform(keys[1], (10,), minval=0.3, maxval=1 / 0.3)
    heights = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jax.lax.argmax(fits, 0, jnp.int32)
    room = jnp.stack([height - heights[first], width - widths[first]])
    top, left = jax.random.randint(keys[2], (2,), 0, room + 1)
    mask = rectangle(image.shape, top, left, heights[first], widths[first])
    happens = jax.random.bernoulli(keys[3], probability) & fits.any()
    return jnp.where(mask & happens, jax.random.uniform(keys[4], image.shape), image)


def _corner_about_a_pixel(key, image_shape, height, width):
    """Returns the top and left of a rectangle whose centre is a uniformly random pixel."""
    row, column = jax.random.randint(key, (2,), 0, jnp.array(image_shape[:2]))
    return row - height // 2, column - width // 2


def mix_pairs(batch, seed_key, step, name, alpha):
    """Applies MIXES[name] to examples 2i and 2i + 1; the first one's index keys the draw."""
    if len(batch['index']) % 2:
        raise UserError(
            f'augment.{name} mixes pairs, but a device has {len(batch["index"])} examples of a '
            'batch; give a train.batch_size that makes it even'
        )
    images = batch['image'].reshape(-1, 2, *batch['image'].shape[1:])

    def mix(images, index):
        key = operation_key(example_key(seed_key, step, index), name)
        return MIXES[name](key, images, alpha)

    images, weight = jax.vmap(mix)(images, batch['index'][::2])
    return {
        **batch,
        'image': images.reshape(batch['image'].shape),
        'other_label': batch['label'].reshape(-1, 2)[:, ::-1].reshape(-1),
        'label_weight': jnp.repeat(weight, 2),
    }


def mixup(key, images, alpha):
    """Blends two images (Zhang et al., 2018); returns them and the weight that each keeps."""
    weight = jax.random.beta(key, alpha, alpha)
    return weight * images + (1 - weight) * images[::-1], weight


def cutmix(key, images, alpha):
    """Swaps a rectangle of two images (Yun et al., 2019); returns them and the share each keeps."""
    shape = images.shape[1:]
    weight_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.beta(weight_key, alpha, alpha))  # as a fraction of the image's
    height, width = ((n * side).astype(jnp.int32) for n in shape[:2])
    top, left = _corner_about_a_pixel(centre_key, shape, height, width)
    mask = rectangle(shape, top, left, height, width)
    return jnp.where(mask[None], images[::-1], images), 1 - mask.mean(dtype=jnp.float32)


FLIPS = {'none': None, 'random': random_flip, 'alternating': alternating_flip}

# Functions of (key, image, amount), in the order in which they are applied, after the flip.
OPERATIONS = {
    'crop_padding': random_crop,  # pixels on each side
    'translate': random_crop,  # largest shift, in pixels
    'rotate': random_rotation,  # largest angle, in degrees
    'brightness': random_factor(brightness),  # largest distance of the factor from 1
    'contrast': random_factor(contrast),
    'saturation': random_factor(saturation),
    'cutout': random_cutout,  # side, in pixels
    'erase': random_erasing,  # probability
}

# Functions of (key, images[2, H, W, C], alpha of the Beta distribution), applied last.
MIXES = {'mixup': mixup, 'cutmix': cutmix}


def _check(config, image_shape):
    side = min(image_shape[:2])
    limits = {'crop_padding': side, 'translate': side, 'cutout': side, 'rotate': 180}
    limits |= dict.fromkeys(('brightness', 'contrast', 'saturation', 'erase'), 1)
    limits |= dict.fromkeys(MIXES, 100)  # beyond it all mixtures are half and half
    for name, largest in limits.items():
        if not 0 <= config[name] <= largest:  # so that NaN is refused too
            raise UserError(
                f'augment.{name}={config[name]} is out of range; give a number from 0 to {largest}'
            )
    if config.mixup and config.cutmix:
        raise UserError('augment.mixup and augment.cutmix cannot both be on; set one to 0')
