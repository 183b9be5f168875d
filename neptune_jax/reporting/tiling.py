"""Where a figure of captioned images has each of its images."""

from collections.abc import Sequence

IMAGES_A_ROW = 5
DPI = 120
_PITCH, _HALF = 1.9, 0.85  # inches: between the centres of two images, and of half an image


def size(count: int, lines: int = 2) -> tuple[float, float]:
    """Returns the width and the height of a figure, in inches.

    Args:
        count: of its images.
        lines: of each caption.
    """
    rows = max(1, -(-count // IMAGES_A_ROW))
    return _PITCH * IMAGES_A_ROW, (_PITCH + 0.15 * lines) * rows + 0.4


def box(place: int, shape: Sequence[int], lines: int = 2) -> tuple[float, float, float, float]:
    """Returns the left, top, right and bottom edge of an image, in inches from the top left.

    Args:
        place: its number in the figure.
        shape: its height and its width, in pixels.
        lines: of each caption.
    """
    row, column = divmod(place, IMAGES_A_ROW)
    x, y = _PITCH * (column + 0.5), (_PITCH + 0.15 * lines) * (row + 1) - 0.5
    half_height, half_width = (_HALF * side / max(shape[:2]) for side in shape[:2])
    return x - half_width, y - half_height, x + half_width, y + half_height
