"""Classes of which no image is left: named with the reasons, and refused if fewer than two remain.

An image is lost when a data set is prepared, because it cannot be used, or by cleaning, because it
is a copy of another one.
"""

from collections.abc import Mapping
from typing import Any

from neptune_jax.errors import UserError

NAMED = 10  # so many classes a message names

Losses = Mapping[str, Mapping[str, Any]]  # by class: `rules`, a count of each; `first`, an example


def add_loss(
    losses: dict[str, dict[str, Any]], class_name: str, rule: str, example: str, count: int = 1
) -> None:
    """Counts images of a class that are lost by a rule. The example names the first of them."""
    own = losses.setdefault(class_name, {'rules': {}, 'first': example})
    own['rules'][rule] = own['rules'].get(rule, 0) + count


def empty_classes(counts: Mapping[str, int], losses: Losses) -> list[str]:
    """Returns the classes without images in a split, each with what became of its images.

    Args:
        counts: the number of images of each class that are left, by its name.
        losses: what was lost of each class.
    """
    return [f'{name} ({_reasons(losses.get(name))})' for name, count in counts.items() if not count]


def _reasons(lost):
    if not lost:
        return 'no images'
    counts = ', '.join(f'{n:,} {rule.replace("_", " ")}' for rule, n in lost['rules'].items())
    return f'{counts}, the first {lost["first"]}'


def check(counts: Mapping[str, int], losses: Losses) -> None:
    """Raises UserError unless training images of two classes are left.

    Args:
        counts, losses: as for `empty_classes`, of the training split.
    """
    left = [name for name, count in counts.items() if count]
    if len(left) < 2:
        lost = empty_classes(counts, losses)
        more = f' and {len(lost) - NAMED:,} more' if len(lost) > NAMED else ''
        raise UserError(
            f'of {len(counts):,} classes, training images are left of {", ".join(left) or "none"}: '
            f'there is nothing to classify; lost are {", ".join(lost[:NAMED])}{more}; mend those '
            'images, or see the options data.clean.*'
        )
