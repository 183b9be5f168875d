"""What splits by a hash of each image lose against stratified ones: how far sizes and classes vary.

    python -m experiments.benchmarks.splits

The splits of 200 seeds, a tenth of the images to test and a tenth of the others to validate: of the
images of Fashion-MNIST-mini, and of a simulated data set whose classes have 4 to 2,000 images. No
network is trained.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from neptune_jax import defaults
from neptune_jax.data import splits
from neptune_jax.data.sources import opening
from neptune_jax.data.sources.raw import CONTENT_BYTES
from neptune_jax.runs import environment

RESULTS = Path(__file__).parent / 'results/splits.jsonl'
FRACTION = 0.1
IMBALANCED = (2000, 1000, 500, 250, 125, 60, 30, 15, 8, 4)  # images of each class


def fashion_mnist_mini(data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of the 3,000 images, and a hash of each."""
    config = defaults.get_config().data
    config.update(name='fashion_mnist_mini', dir=data_dir)
    index = opening.open_source(config).index()
    return index['label'], index['digest']


def imbalanced() -> tuple[np.ndarray, np.ndarray]:
    """Returns labels, and random bytes for the hashes of images."""
    labels = np.repeat(np.arange(len(IMBALANCED)), IMBALANCED)
    contents = np.random.default_rng(0).bytes(len(labels) * CONTENT_BYTES)
    return labels, np.frombuffer(contents, f'V{CONTENT_BYTES}')


def by_hash(labels, contents, seed):
    """Returns the examples that train, validate and test, as for one's own images."""
    return splits.by_content(np.arange(len(labels)), labels, contents, FRACTION, FRACTION, seed)


def stratified(labels, contents, seed):
    """Returns the examples that train, validate and test, as for standard data sets."""
    del contents
    rest, test = splits.stratified(np.arange(len(labels)), labels, FRACTION, seed)
    train, val = splits.stratified(rest, labels, FRACTION, seed)
    return train, val, test


def measure(name, labels, contents, method, seeds):
    """Returns a record of the test and validation splits of some seeds."""
    count = labels.max() + 1
    shares = np.bincount(labels) / len(labels)
    record = {
        'benchmark': 'splits',
        'data': name,
        'method': method.__name__,
        'fraction': FRACTION,
        'class_sizes': np.bincount(labels).tolist(),
        'seeds': seeds,
    }
    drawn = [method(labels, contents, seed) for seed in range(seeds)]
    for split, number in (('val', 1), ('test', 2)):
        counts = np.array([np.bincount(labels[parts[number]], minlength=count) for parts in drawn])
        sizes = counts.sum(axis=1)
        # Total variation: the part of the images of a split that belongs to other classes.
        distances = np.abs(counts / sizes[:, None] - shares).sum(axis=1) / 2
        record[split] = {
            'size': _spread(sizes),
            'of_each_class': [_spread(own) for own in counts.T],
            'distance_of_class_shares': _spread(distances),
            'seeds_with_a_class_missing': int((counts == 0).any(axis=1).sum()),
        }
    return record | {
        'numpy': np.__version__,
        **environment.machine(),
    }


def _spread(values):
    return {
        'mean': round(float(np.mean(values)), 4),
        'deviation': round(float(np.std(values, ddof=1)), 4),
        'low': round(float(np.min(values)), 4),
        'high': round(float(np.max(values)), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, written anew')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--seeds', type=int, default=200)
    args = parser.parse_args()
    data = {
        'fashion_mnist_mini': fashion_mnist_mini(args.data_dir),
        'imbalanced': imbalanced(),
    }
    with args.out.open('w') as file:
        for name, (labels, contents) in data.items():
            for method in (by_hash, stratified):
                record = measure(name, labels, contents, method, args.seeds)
                file.write(json.dumps(record) + '\n')
                print(json.dumps(record))


if __name__ == '__main__':
    main()
