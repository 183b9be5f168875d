"""Augmentation of training batches on the device, inside the compiled training step.

Each random draw has a key made of (seed, step, example). So the result does not depend on the
number of devices or on how a batch is divided. Pixels are in [0, 1]; standardisation comes after.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates
from ml_collections import ConfigDict

from neptune_jax.defaults import FIELDS
from neptune_jax.errors import UserError, choose, choose_or_import

Batch = dict[str, Array]


def create_augment(
    config: ConfigDict, image_shape: Sequence[int]
) -> Callable[[Batch, Array, Array, Array], Batch]:
    """Returns the augmentation of a batch that the `augment` group of a config describes.

    It is a pure function (batch, seed_key, step, epoch) -> batch, to be traced. `step` and `epoch`
    are int32 scalars. A batch has `image` float32[B, H, W, C], `label` int32[B] and `index`
    int32[B], the numbers of the examples in the data set; other keys stay as they are. Under pmap
    and shard_map it is the device's share of the batch.

    Mixup and CutMix mix examples 2i and 2i + 1 of the batch. They add `other_label` int32[B] and
    `label_weight` float32[B]: the weight of `label` in the loss; `other_label` has 1 minus that.

    Args:
        config: the `augment` group. A field of OPERATIONS or MIXES is off if it is 0; `flip` is a
            key of FLIPS; `extra` names functions of your own, each as 'package.module:name', from
            (key, image float32[H, W, C]) to image, which are applied after OPERATIONS.
        image_shape: (H, W, C).

    Raises:
        UserError: a field out of range, or a function that cannot be imported. The returned
            function raises it if it is to mix a batch of an odd size.
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
            # The key of a step that no run reaches, so that it is the same at every step.
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


def example_key(seed_key: Array, step: Array | int, index: Array) -> Array:
    """Returns the key of all random draws for one example at one step."""
    return jax.random.fold_in(jax.random.fold_in(seed_key, step), index)


def dropout_key(seed_key: Array, step: Array, index: Array) -> Array:
    """Returns the key of the dropout of one example at one step."""
    return operation_key(example_key(seed_key, step, index), 'dropout')


def operation_key(key: Array, name: str) -> Array:
    """Returns the key of one operation on an example. It does not depend on what else is on."""
    return jax.random.fold_in(key, ('flip', *OPERATIONS, *MIXES, 'dropout', 'extra').index(name))


def random_flip(key: Array, fixed_key: Array, image: Array, epoch: Array) -> Array:
    """Flips an image horizontally with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def alternating_flip(key: Array, fixed_key: Array, image: Array, epoch: Array) -> Array:
    """Flips horizontally in all odd or in all even epochs, at random (Jordan, arXiv:2404.00498)."""
    odd_ones = jax.random.bernoulli(fixed_key)
    return jnp.where((epoch % 2 == 1) == odd_ones, image[:, ::-1], image)


def crop(image: Array, corner: Array, padding: int) -> Array:
    """Pads an image with zeros, then crops it to its original size at `corner`, int32[2]."""
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)


def rotate(image: Array, degrees: Array) -> Array:
    """Rotates counter-clockwise about the centre, with bilinear interpolation and zeros outside."""
    rows, columns = (jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2 for n in image.shape[:2])
    rows, columns = jnp.meshgrid(rows, columns, indexing='ij')
    angle = jnp.deg2rad(degrees)
    source = (
        columns * jnp.sin(angle) + rows * jnp.cos(angle) + (image.shape[0] - 1) / 2,
        columns * jnp.cos(angle) - rows * jnp.sin(angle) + (image.shape[1] - 1) / 2,
    )
    return jax.vmap(lambda channel: map_coordinates(channel, source, order=1), -1, -1)(image)


def brightness(image: Array, factor: Array) -> Array:
    """Blends with black, as torchvision does. A factor below 1 makes the image darker."""
    return _blend(image, jnp.zeros_like(image), factor)


def contrast(image: Array, factor: Array) -> Array:
    """Blends with the mean of the grey image, as torchvision does. Below 1: less contrast."""
    return _blend(image, grey(image).mean(), factor)


def saturation(image: Array, factor: Array) -> Array:
    """Blends with the grey image, as torchvision does. Below 1: less colour."""
    return _blend(image, grey(image), factor)


def grey(image: Array) -> Array:
    """Returns the grey image, [H, W, 1]: luma of RGB (ITU-R BT.601), else the channels' mean."""
    if image.shape[-1] != 3:
        return image.mean(axis=-1, keepdims=True)
    return 0.2989 * image[..., :1] + 0.587 * image[..., 1:2] + 0.114 * image[..., 2:]


def _blend(image, other, factor):
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def rectangle(
    image_shape: Sequence[int], top: Array, left: Array, height: Array | int, width: Array | int
) -> Array:
    """Returns bool[H, W, 1], True in a rectangle. The rectangle may reach beyond the image."""
    rows, columns = jnp.arange(image_shape[0]), jnp.arange(image_shape[1])
    inside_rows = (rows >= top) & (rows < top + height)
    inside_columns = (columns >= left) & (columns < left + width)
    return inside_rows.reshape(-1, 1, 1) & inside_columns.reshape(1, -1, 1)


def random_crop(key: Array, image: Array, padding: int) -> Array:
    """Pads and crops at a random place. A random translation by up to `padding` is the same."""
    return crop(image, jax.random.randint(key, (2,), 0, 2 * padding + 1), padding)


def random_rotation(key: Array, image: Array, largest: float) -> Array:
    """Rotates by an angle from -largest to largest, in degrees."""
    return rotate(image, jax.random.uniform(key, minval=-largest, maxval=largest))


def random_factor(
    function: Callable[[Array, Array], Array],
) -> Callable[[Array, Array, float], Array]:
    """Returns a function (key, image, amount) with a factor drawn from [1 - amount, 1 + amount]."""

    def random_function(key, image, amount):
        return function(image, jax.random.uniform(key, minval=1 - amount, maxval=1 + amount))

    return random_function


def random_cutout(key: Array, image: Array, side: int) -> Array:
    """Fills a square about a random pixel with zeros (Cutout, DeVries and Taylor, 2017)."""
    top, left = _corner_about_a_pixel(key, image.shape, side, side)
    mask = rectangle(image.shape, top, left, side, side)
    return jnp.where(mask, 0, image)


def random_erasing(key: Array, image: Array, probability: float) -> Array:
    """Fills a rectangle with noise: Random Erasing, RE-R of Zhong et al. (2020), as in their code.

    Ten rectangles are drawn, and the first that fits into the image is used. It is rare that none
    fits; then the image stays as it is.
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
    """Returns top and left of a rectangle whose centre is a pixel drawn uniformly."""
    row, column = jax.random.randint(key, (2,), 0, jnp.array(image_shape[:2]))
    return row - height // 2, column - width // 2


def mix_pairs(batch: Batch, seed_key: Array, step: Array, name: str, alpha: float) -> Batch:
    """Applies MIXES[name] to examples 2i and 2i + 1, with the key of example 2i."""
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


def mixup(key: Array, images: Array, alpha: float) -> tuple[Array, Array]:
    """Blends two images, [2, H, W, C] (mixup, Zhang et al., 2018).

    Returns:
        The two blends, and the weight of the first image in the first, of the second in the second.
    """
    weight = jax.random.beta(key, alpha, alpha)
    return weight * images + (1 - weight) * images[::-1], weight


def cutmix(key: Array, images: Array, alpha: float) -> tuple[Array, Array]:
    """Swaps a rectangle of two images, [2, H, W, C] (CutMix, Yun et al., 2019).

    Returns:
        The two images, and the share of its pixels that each keeps.
    """
    shape = images.shape[1:]
    weight_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.beta(weight_key, alpha, alpha))  # as a fraction of the image's
    height, width = ((n * side).astype(jnp.int32) for n in shape[:2])
    top, left = _corner_about_a_pixel(centre_key, shape, height, width)
    mask = rectangle(shape, top, left, height, width)
    return jnp.where(mask[None], images[::-1], images), 1 - mask.mean(dtype=jnp.float32)


FLIPS = {'none': None, 'random': random_flip, 'alternating': alternating_flip}

# Functions of (key, image, amount). They are applied in this order, after the flip.
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

# Functions of (key, images[2, H, W, C], alpha of the Beta distribution). They are applied last.
MIXES = {'mixup': mixup, 'cutmix': cutmix}


def _check(config, image_shape):
    limits = {name: FIELDS[f'augment.{name}'].largest for name in (*OPERATIONS, *MIXES)}
    limits |= dict.fromkeys(('crop_padding', 'translate', 'cutout'), min(image_shape[:2]))
    for name, largest in limits.items():
        if not 0 <= config[name] <= largest:  # refuses NaN too
            raise UserError(
                f'augment.{name}={config[name]} is out of range; give a number from 0 to '
                f'{largest:g}'
            )
    if config.mixup and config.cutmix:
        raise UserError('augment.mixup and augment.cutmix cannot both be on; set one to 0')
