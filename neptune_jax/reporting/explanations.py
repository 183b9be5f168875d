"""The picture that explains a prediction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neptune_jax.data.sources.folders import printable
from neptune_jax.reporting import figures, names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explanation(
    file: str,
    given: np.ndarray,
    image: np.ndarray,
    top: Sequence[tuple[str, float]],
    occlusion: np.ndarray,
) -> 'Figure':
    """Draws an image as given and as the network sees it, the top classes, and an occlusion map.

    Args:
        file: the name of the image's file.
        given: uint8[h, w, 3].
        image: uint8[H, W, C].
        top: classes with their probabilities, the largest first.
        occlusion: float32[H, W], as `predicting.explaining.occlusion_map` returns it.
    """
    figure = figures.new_figure(11, 3.2)
    as_given, as_seen, bars, covered = figure.subplots(1, 4)
    grey = {'cmap': 'gray', 'vmin': 0, 'vmax': 255}
    seen = image.squeeze(-1) if image.shape[-1] == 1 else image
    as_given.imshow(given)
    as_given.set_title(f'as given, {given.shape[1]} x {given.shape[0]}', fontsize=9)
    as_seen.imshow(seen, **grey)
    as_seen.set_title(f'as the network sees it, {image.shape[1]} x {image.shape[0]}', fontsize=9)

    places = range(len(top))
    bars.barh(places, [value for _, value in top], 0.35, color='tab:blue')
    for place, (name, value) in enumerate(top):
        text = f'{names.shown(name, 24)} {value:.1%}'
        bars.text(0.02, place - 0.25, text, va='bottom', fontsize=9, **names.style())
    bars.set(xlim=(0, 1), ylim=(max(len(top), 3) - 0.6, -0.7), yticks=[], xticks=[0, 0.5, 1])
    bars.set_title('probability', fontsize=9)

    covered.imshow(image.mean(axis=-1), **grey)
    # The same drop has the same colour in every picture, unless it is tiny.
    limit = max(0.05, float(np.abs(occlusion).max()))
    shown = covered.imshow(occlusion, cmap='RdBu_r', vmin=-limit, vmax=limit, alpha=0.65)
    name = names.shown(top[0][0], 24)
    covered.set_title(f'how far "{name}" falls\nwhere this is covered', fontsize=9, **names.style())
    figure.colorbar(shown, ax=covered, shrink=0.7)
    for axes in (as_given, as_seen, covered):
        axes.set_axis_off()
    figure.suptitle(names.shown(printable(file), 90), fontsize=10, **names.style())
    return figure
