"""Cleaning: duplicates are found and left out. A report counts them, and what was changed before.

Unreadable images, missing pixels and missing labels are dealt with when a data set is prepared
(sources/raw.py). The report has both.
"""

import copy
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from neptune_jax.data.sources import survivors
from neptune_jax.data.sources.raw import EXAMPLES_REPORTED
from neptune_jax.data.sources.source import Source
from neptune_jax.errors import UserError, check_choice

DUPLICATES = ('drop', 'keep')
NEAR_DUPLICATES = ('count', 'drop', 'ignore')
NAMED = ('empty_classes', 'folders_without_images')  # rules whose examples the screen shows


def clean(
    config: ConfigDict, source: Source, index: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the official splits without the examples that cleaning removes, and a report.

    Of images with equal pixels one is kept: the first in the test split, else the first in the
    validation split, else the first in the training split. So no image is in two splits.

    Args:
        config: the `data.clean` group.
        source: the Source of the examples.
        index: what `source.index()` returns.

    Returns:
        A dict from split to increasing int64[n]; and a dict for data_report.json: `before` and
        `after` (the sizes of the splits), `classes` (the number of examples of each class in each
        split) and `rules`, each with its `count` and its first ten `examples`.

    Raises:
        UserError: an unknown option, a split that is empty after cleaning, or fewer than two
            classes with training images.
    """
    check_choice(config.duplicates, DUPLICATES, 'data.clean.duplicates')
    check_choice(config.near_duplicates, NEAR_DUPLICATES, 'data.clean.near_duplicates')
    # Of equal images the first one in this order is kept.
    kept = np.concatenate(
        [source.splits[s] for s in ('test', 'val', 'train') if s in source.splits]
    )
    rules = dict(source.report)

    again, first = _repeated(index['digest'], kept)
    conflicting = index['label'][again] != index['label'][first]
    _note(rules, 'conflicting_labels', source, again[conflicting], first[conflicting])
    _note(rules, 'exact_duplicates', source, again, first)
    if config.duplicates == 'drop':
        kept = kept[~np.isin(kept, again)]
    if config.near_duplicates != 'ignore':
        near = kept[index['near'][kept] >= 0]
        _note(rules, 'near_duplicates', source, near, index['near'][near])
        if config.near_duplicates == 'drop':
            kept = kept[~np.isin(kept, near)]

    splits = {split: part[np.isin(part, kept)] for split, part in source.splits.items()}
    for split, part in splits.items():
        if not len(part):
            raise UserError(
                f'the split {split!r} is empty after cleaning; its {len(source.splits[split]):,} '
                'images are copies of others: see the options data.clean.*, or take this split '
                'away, and one is drawn from the training images'
            )
    classes = {
        split: dict(
            zip(
                source.class_names,
                np.bincount(index['label'][part], minlength=len(source.class_names)).tolist(),
                strict=True,
            )
        )
        for split, part in splits.items()
    }
    report = {
        'before': source.before,
        'after': {split: len(part) for split, part in splits.items()},
        'classes': classes,
        'rules': _empty_classes(source, index['label'], classes) | rules,
    }
    return splits, report


def _empty_classes(source, labels, classes):
    """Returns the rule that names the classes of which no image is left, and why.

    Raises:
        UserError: training images of fewer than two classes are left.
    """
    found = []
    for split, counts in classes.items():
        losses = copy.deepcopy(source.lost.get(split, {}))
        part = source.splits[split]
        for label, (name, count) in enumerate(counts.items()):
            copies = part[labels[part] == label] if not count else part[:0]
            if len(copies):
                first = source.name(copies[0])
                survivors.add_loss(losses, name, 'copies_of_other_images', first, len(copies))
        if split == 'train':
            survivors.check(counts, losses)
        else:  # a class may have no validation or test images
            counts = {name: count for name, count in counts.items() if name in losses}
        found += [f'{split}: {each}' for each in survivors.empty_classes(counts, losses)]
    rule = {'count': len(found), 'examples': found[:EXAMPLES_REPORTED]}
    return {'empty_classes': rule} if found else {}


def summary(report: dict[str, Any]) -> str:
    """Returns what cleaning found as one line."""
    found = [_in_words(name, rule) for name, rule in report['rules'].items()]
    counts = [count for count in report['classes']['train'].values() if count]
    if max(counts) > 1.5 * min(counts):
        found.append(f'classes of {min(counts):,} to {max(counts):,} training images')
    return ', '.join(found) or 'nothing to clean'


def _in_words(name, rule):
    """Returns a rule with its count, and of some rules what it counted."""
    text = f'{rule["count"]:,} {name.replace("_", " ")}'
    if 'kinds' in rule:
        kinds = [f'{count:,} {kind}' for kind, count in rule['kinds'].items()]
        more = [f'{len(kinds) - EXAMPLES_REPORTED:,} more kinds'] * (len(kinds) > EXAMPLES_REPORTED)
        return f'{text} ({", ".join(kinds[:EXAMPLES_REPORTED] + more)})'
    return f'{text} ({", ".join(rule["examples"])})' if name in NAMED else text


def _repeated(keys, examples):
    """Returns the examples with the key of an earlier one, and for each the first with that key."""
    _, first, inverse = np.unique(keys[examples], return_index=True, return_inverse=True)
    firsts = first[inverse.ravel()]
    again = firsts != np.arange(len(examples))
    return examples[again], examples[firsts[again]]


def _note(rules, rule, source, again, first):
    if len(again):
        pairs = list(zip(again, first, strict=True))[:EXAMPLES_REPORTED]
        rules[rule] = {
            'count': len(again),
            'examples': [f'{source.name(a)} = {source.name(b)}' for a, b in pairs],
        }
