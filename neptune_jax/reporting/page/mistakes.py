"""The worst mistakes of a test, with the pictures that the test has drawn of them."""

import base64
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neptune_jax.reporting import tiling
from neptune_jax.reporting.page.markup import Markup, join, name, tag
from neptune_jax.reporting.page.tested import Tested

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 25
_PICTURE = 'artifacts/worst_mistakes.png'
_MAX_BYTES = 16_000  # of an image
_SHARP = 3  # an image that is drawn so much larger than it is keeps its pixels


def worst(tested: Tested) -> Markup:
    """Returns the wrongly classified images with the highest loss, worst first."""
    wrong = np.flatnonzero(tested.prediction != tested.label)
    chosen = wrong[np.argsort(-tested.loss[wrong], kind='stable')][:SHOWN]
    images = _images(tested, len(chosen))
    items = []
    for place, number in enumerate(chosen):
        label, prediction = (
            tested.classes[int(each[number])] for each in (tested.label, tested.prediction)
        )
        texts = [
            tag('b', name(prediction)),
            f' {tested.confidence[number]:.0%}',
            tag('br'),
            'is ',
            name(label),
            tag('span', f' #{int(tested.index[number]):,}', class_='quiet'),
        ]
        items.append(tag('li', images[place] if images else None, *texts))
    note = f'{len(wrong):,} of {len(tested.label):,} test images are wrong; the highest loss first.'
    return join((tag('p', note, class_='quiet'), tag('ol', *items, class_='mistakes')))


def _images(tested: Tested, count: int) -> list[Markup]:
    """Returns the images of the first mistakes, cut out of the figure; [] if it cannot be used."""
    from PIL import Image

    shape = (tested.record.environment.get('data') or {}).get('image_shape')
    if _PICTURE not in tested.record.artifacts or not count or not shape:
        return []
    try:
        with warnings.catch_warnings(action='ignore'):
            file = Image.open(Path(tested.record.workdir) / _PICTURE, formats=['PNG'])
            width, height = (round(tiling.DPI * side) for side in tiling.size(count))
            # A figure of another size is of another version, or of other images.
            if file.width != width or abs(file.height - height) > 1:
                return []
            figure = file.convert('RGB')
    except (OSError, ValueError, SyntaxError):
        return []
    return [_image(figure, place, shape) for place in range(count)]


def _image(figure: 'Image.Image', place: int, shape: Sequence[int]) -> Markup:
    from PIL import Image

    left, top, right, bottom = (tiling.DPI * edge for edge in tiling.box(place, shape))
    edges = (math.ceil(left), math.ceil(top), math.floor(right), math.floor(bottom))
    image, (height, width) = figure.crop(edges), shape[:2]
    is_sharp = image.width >= _SHARP * width and image.height >= _SHARP * height
    if is_sharp:  # the middle of a drawn pixel has its colour
        image = image.resize((width, height), Image.Resampling.NEAREST)
    if shape[2:] == [1]:
        image = image.convert('L')
    content, kind = _encoded(image, 'PNG'), 'png'
    if len(content) > _MAX_BYTES:
        content, kind = _encoded(image, 'JPEG', quality=80), 'jpeg'
    text = base64.b64encode(content).decode()
    return tag(
        'img',
        src=f'data:image/{kind};base64,{text}',
        alt='',
        class_=None if is_sharp else 'large',
    )


def _encoded(image: 'Image.Image', kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return file.getvalue()
