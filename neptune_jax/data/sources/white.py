"""Which number means white: decided once for each kind of number, from all images of all splits.

White is 255 in numbers of 8 bits and True in booleans. Wider numbers often use a part of their
range: the largest number of the data set tells. What cannot have one white is refused.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from neptune_jax.data.sources.decoding import (
    WHITE_16,
    Unreadable,
    open_file,
    pixels_of,
    raw_mode_of,
)
from neptune_jax.data.sources.images import ONE, Conversion, kind_of
from neptune_jax.errors import UserError

LADDER = (255, 1023, 4095, 16383, WHITE_16)  # the largest numbers of 8, 10, 12, 14 and 16 bits
CUT = '16-bit colour'  # a kind of number, of which Pillow shows the upper 8 bits
CUT_LEVELS = 64  # with fewer of them left, 16-bit colour has lost too much

MANY = 0.1  # a larger share of a split is no exception, to be dropped and named
WIDENING = 257  # 255 * 257 = 65535
DARKER = 8  # the brightest pixels of two splits do not differ by such a factor by chance
FULL = 0.98  # a split that comes so near to the largest number of so many bits has no more bits
DIM = 128  # where 255 is white, a data set without a brighter pixel is worth a note


class Values(NamedTuple):
    """The ranges of the images of one kind of number in one split."""

    numbers: np.ndarray  # int[n], of the images in the split
    low: np.ndarray  # float64[n]
    high: np.ndarray  # float64[n]
    fractional: np.ndarray  # bool[n]: some values are no whole numbers; known for dark images only
    widened: np.ndarray  # bool[n]: all values are multiples of 257, as of 8 bits widened to 16


Range = tuple[str, float, float, bool, bool]  # the kind and the Values of one image
Found = Mapping[str, Mapping[str, Values]]  # by split and kind


def values_of_arrays(arrays: np.ndarray) -> dict[str, Values]:
    """Returns the Values of images [N, H, W] or [N, H, W, C], by their kind."""
    if 0 in arrays.shape or arrays.dtype.kind == 'b':
        return {}
    axes = tuple(range(1, arrays.ndim))
    low = np.fmin.reduce(arrays, axis=axes).astype(np.float64)  # NaN if all pixels are missing
    high = np.fmax.reduce(arrays, axis=axes).astype(np.float64)
    fractional = widened = np.zeros(len(arrays), bool)
    kind = kind_of(arrays.dtype)
    if kind == 'floats':
        dark = zip(_is_dark(high), arrays, strict=True)
        fractional = np.array([is_dark and (np.floor(a) < a).any() for is_dark, a in dark])
    elif kind == 'uint16':
        lit = zip(high > 0, arrays, strict=True)
        widened = np.array([is_lit and not (a % WIDENING).any() for is_lit, a in lit])
    return {kind: Values(np.arange(len(arrays)), low, high, fractional, widened)}


def values_of_images(ranges: Iterable[tuple[int, Range | None]]) -> dict[str, Values]:
    """Returns the Values of images of one split, by their kind. Those that are None do not count.

    Args:
        ranges: the number of each image in the split, and its `range_of_array` or `range_of_file`.
    """
    rows: dict[str, list] = {}
    for number, found in ranges:
        if found:
            rows.setdefault(found[0], []).append((number, *found[1:]))
    return {
        kind: Values(*map(np.array, zip(*images, strict=True))) for kind, images in rows.items()
    }


def range_of_array(array: np.ndarray) -> Range | None:
    """Returns the range of one image; None for booleans."""
    for kind, values in values_of_arrays(array[None]).items():
        _, low, high, fractional, widened = (column[0] for column in values)
        return kind, float(low), float(high), bool(fractional), bool(widened)
    return None


def range_of_file(file: BinaryIO, max_pixels: int) -> Range | None:
    """Returns the range of an image file; None if it holds 8 bits, or no image that can be used.

    Raises:
        OSError, MemoryError: the file cannot be read now.
    """
    try:
        opened = open_file(file, max_pixels)
    except Unreadable:
        return None
    if opened.is_cut:
        return CUT, 0.0, float(np.asarray(opened.image.convert('RGB')).max()), False, False
    if not opened.is_deep or opened.white:
        return None
    return range_of_array(pixels_of(opened.image))


def may_be_deep(file: BinaryIO) -> bool:
    """Whether an open file may hold an image of more than 8 bits, by its header."""
    start = file.read(26)
    file.seek(0)
    if start.startswith(b'\x89PNG'):
        return start[24:25] == b'\x10'  # the bits of a channel
    if start.startswith((b'\xff\xd8', b'GIF8', b'BM', b'RIFF')):  # JPEG, GIF, BMP, WebP
        return False
    with contextlib.suppress(Exception), Image.open(file) as image:
        return image.mode.startswith('I') or image.mode == 'F' or ';16' in raw_mode_of(image)
    return False


def _is_dark(high):
    return (high > 0) & (high < LADDER[0] / 2 / DARKER)


def resolve(
    where: str | Path, conversion: Conversion, found: Found, name_of: Callable[[str, int], str]
) -> tuple[Conversion, list[str]]:
    """Returns the conversion with `whites` set, and notes about what was guessed.

    Args:
        where: the images come from, for error messages.
        conversion: as the config asks for it. If its `white` is set, nothing is guessed.
        found: the Values of the images of all splits.
        name_of: (split, number) -> the name of an image.

    Raises:
        UserError: splits, or images of one split, that cannot have the same white; many images
            with values below black or above white.
    """
    whites, notes = {}, []
    for kind in sorted({kind for kinds in found.values() for kind in kinds}):
        parts = {split: _finite(kinds[kind]) for split, kinds in found.items() if kind in kinds}
        parts = {split: values for split, values in parts.items() if len(values.high)}
        if not parts:
            continue
        highs = np.concatenate([values.high for values in parts.values()])
        white = conversion.white or _white(f'{where}: {kind}', kind, highs, parts)
        if kind == CUT:
            white = 255
            _check_cut(where, conversion, highs)
        else:
            white = min(white, 255) if kind == 'uint8' else white
            whites[kind] = white
            _check_images(where, kind, parts, white, not conversion.white, name_of)
        if not conversion.white:
            _check_splits(where, kind, parts, white)
            notes += _notes(kind, highs[highs < white + 0.5].max(initial=0), white)
    return conversion._replace(whites=whites), notes


def _finite(values):
    finite = np.isfinite(values.low) & np.isfinite(values.high)
    return Values(*(column[finite] for column in values))


def _white(where, kind, highs, parts):
    """Returns the number that means white, from the highest values of all images."""
    if kind in ('uint8', CUT):
        return 255
    if kind == 'uint16':
        widened = all((values.widened | (values.high == 0)).all() for values in parts.values())
        return WHITE_16 if widened and highs.max() else _bits(highs.max())
    # Most images decide: one alone may have a pixel that is out of range.
    lit = highs[highs > 0]
    typical = np.median(lit) if len(lit) else 0
    if kind == 'floats' and typical <= ONE:
        return 1
    if typical > WHITE_16:
        raise UserError(
            f'{where} up to {highs.max():g}: say with --config.data.white which number is white'
        )
    return 255 if typical < 255.5 else _bits(highs[highs < WHITE_16 + 0.5].max())


def _bits(high):
    """Returns the smallest number of LADDER that holds a number."""
    return next(step for step in LADDER if high < step + 0.5 or step == LADDER[-1])


def _check_cut(where, conversion, highs):
    convert = 'convert these files to 8 bits'
    if conversion.white not in (0, WHITE_16):
        raise UserError(
            f'{where}: data.white={conversion.white:g} cannot be used for {len(highs):,} files of '
            f'16-bit colour, of which Pillow reads the upper 8 bits; {convert}'
        )
    if highs.max() < CUT_LEVELS and not conversion.white:
        raise UserError(
            f'{where}: of {len(highs):,} files of 16-bit colour Pillow reads the upper 8 bits, and '
            f'these are {highs.max():g} at the most: they hold fewer than 16 bits, and few levels '
            f'are left; {convert}, or set --config.data.white={WHITE_16} if they are so dark'
        )


def _check_images(where, kind, parts, white, guessed, name_of):
    """Refuses many images of a split that are below black, above white, or of another scale."""
    for split, (numbers, low, high, fractional, widened) in parts.items():

        def images(mask, numbers=numbers, split=split):
            first = name_of(split, int(numbers[mask.argmax()]))
            return f'{where}: {mask.sum():,} of {len(numbers):,} images of {split} ({first}, ...)'

        below = low * 255 / white < -0.5
        if _many(below):
            least, most = low.min(), high.max()
            raise UserError(
                f'{images(below)} have values below 0: {kind} from {least:g} to {most:g}; black '
                f'must be 0: rescale all images, maybe by (x + {-least:g}) / {most - least:g}'
            )
        above = high * 255 / white >= 255.5
        # Of another scale are fractions up to 1, if 255 or more is white, and 8 bits widened to 16.
        small = fractional & (high <= ONE) & (white > ONE)
        for mask in (above, small & guessed, widened & guessed & (white < WHITE_16)):
            if _many(mask):
                others = [values.high for name, values in parts.items() if name != split]
                most = np.concatenate([high[~mask], *others]).max(initial=0)
                others = f'the others from 0 to {most:g}' if most else f'white is {white:g}'
                raise UserError(
                    f'{images(mask)} have {kind} from {low[mask].min():g} to '
                    f'{high[mask].max():g}, {others}; rescale one of them, or say with '
                    '--config.data.white which number is white everywhere'
                )
    dim = all((_is_dark(v.high) | (v.high == 0)).all() for v in parts.values())
    most = max(v.high.max() for v in parts.values())
    if guessed and dim and white > ONE and most > ONE:
        share = np.mean(np.concatenate([v.fractional for v in parts.values()]))
        if share > 0.5:
            raise UserError(
                f'{where}: {kind} from 0 to {most:g} are neither from 0 to 1 nor from 0 to 255; '
                'rescale them, or say with --config.data.white which number is white'
            )


def _many(mask):
    return mask.all() or (mask.sum() > 1 and mask.mean() > MANY)


def _check_splits(where, kind, parts, white):
    """Refuses splits whose brightest pixels differ so that they cannot have the same white."""
    highs = {
        split: values.high[values.high < white + 0.5].max(initial=0)
        for split, values in parts.items()
    }
    for one, other in itertools.permutations(highs, 2):
        if differ(highs[one], highs[other]):
            raise UserError(
                f'{where}: {kind} of {one} lie in 0 to {highs[one]:g}, of {other} in 0 to '
                f'{highs[other]:g}, which cannot be of one scale; rescale one of them, or say '
                'with --config.data.white which number is white in both'
            )


def differ(darker: float, brighter: float) -> bool:
    """Whether two splits with these brightest pixels cannot be of one scale."""
    if darker * DARKER <= brighter:
        return brighter > 0
    bits = _bits(darker)
    return bits < _bits(brighter) and FULL * bits <= darker < brighter / 2


def _notes(kind, high, white):
    guess = f'{kind} up to {high:g}: {white:g} is taken for white; if another number is, set '
    if (kind == 'uint16' and white < WHITE_16) or (kind != 'uint16' and white > 255):
        return [guess + '--config.data.white']
    if white == 255 and high < DIM and kind != CUT:
        return [guess + '--config.data.white']
    return []
