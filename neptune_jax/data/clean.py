"""Cleaning: which examples of a source are used, and a report of every one that is not."""

import numpy as np

from neptune_jax.data.sources.builder import EXAMPLES_REPORTED
from neptune_jax.errors import UserError, check_choice

DUPLICATES = ('drop', 'keep')
NEAR_DUPLICATES = ('count', 'drop', 'ignore')


def clean(config, source, index):
    """Returns the official splits without the examples that cleaning removes, and a report.

    Of images with the same content one is kept: that of the test split if it is there, else that of
    the validation split, else the first. So no image of one split is ever in another.

    Args:
        config: the `data.clean` group.
        source: data.sources.Source.
        index: its index.

    Returns:
        A dict from split to increasing int64[n]; and a dict for data_report.json: `before` and
        `after` (sizes of the splits), `classes` (examples of each class in each split) and `rules`,
        each with a `count` and its first ten `examples`.

    Raises:
        UserError: an unknown option, or a split that is empty after cleaning.
    """
    check_choice(config.duplicates, DUPLICATES, 'data.clean.duplicates')
    check_choice(config.near_duplicates, NEAR_DUPLICATES, 'data.clean.near_duplicates')
    # First those that are kept first.
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
        again, first = _repeated(index['perceptual'], kept)
        # Those with the very same content have been counted.
        near = index['digest'][again] != index['digest'][first]
        _note(rules, 'near_duplicates', source, again[near], first[near])
        if config.near_duplicates == 'drop':
            kept = kept[~np.isin(kept, again[near])]

    splits = {split: part[np.isin(part, kept)] for split, part in source.splits.items()}
    for split, part in splits.items():
        if not len(part):
            raise UserError(
                f'the split {split!r} is empty after cleaning; see the options data.clean.*'
            )
    report = {
        'before': source.before,
        'after': {split: len(part) for split, part in splits.items()},
        'classes': {
            split: dict(
                zip(
                    source.class_names,
                    np.bincount(index['label'][part], minlength=len(source.class_names)).tolist(),
                    strict=True,
                )
            )
            for split, part in splits.items()
        },
        'rules': rules,
    }
    return splits, report


def summary(report):
    """Returns one line of what cleaning found."""
    found = [
        f'{rule["count"]:,} {name.replace("_", " ")}' for name, rule in report['rules'].items()
    ]
    counts = [count for count in report['classes']['train'].values() if count]
    if max(counts) > 1.5 * min(counts):
        found.append(f'classes of {min(counts):,} to {max(counts):,} training images')
    return ', '.join(found) or 'nothing to clean'


def _repeated(keys, examples):
    """Returns the examples whose key an earlier one has, and for each the first one that has it."""
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
