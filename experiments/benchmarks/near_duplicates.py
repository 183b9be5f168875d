"""How many changed copies are found as near duplicates, and how many other pictures are, too.

    python -m experiments.benchmarks.near_duplicates

Copies of 2,000 images of Fashion-MNIST are changed in several ways. Then all 70,000 images are
searched, in which there should be few; --sheet draws the pairs, for a person to judge. The
"difference hash" that earlier versions used is measured on the same images.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from neptune_jax import defaults
from neptune_jax.data.sources import near_duplicates, opening
from neptune_jax.runs import environment
from neptune_jax.testing.pictures import encoded, moved, resized, scaled

RESULTS = Path(__file__).parent / 'results/near_duplicates.jsonl'
COPIES = 2000
CHANGES = {
    'JPEG of quality 90': lambda images: encoded(images, 90),
    'JPEG of quality 75': lambda images: encoded(images, 75),
    'brighter by 10%': lambda images: scaled(images, 1.1),
    'darker by 10%': lambda images: scaled(images, 0.9),
    'moved by one pixel': lambda images: moved(images, 0, 1),
    'enlarged twice, made small again': lambda images: resized(images, 2),
}


def by_pictures(images: np.ndarray) -> np.ndarray:
    """Returns int64[n]: the earlier image that each one nearly duplicates, or -1."""
    digests = np.array(
        [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    )
    sketches = np.concatenate(
        [near_duplicates.sketch(part) for part in np.array_split(images, 1 + len(images) // 4096)]
    )
    order = np.arange(len(images))
    return near_duplicates.find(sketches, digests, order, lambda numbers: images[numbers])


def by_difference_hash(images: np.ndarray) -> np.ndarray:
    """The same where images with equal hashes count: a cell is darker than its right neighbour."""
    cells = images.mean(axis=-1, dtype=np.float32)
    rows, columns = (np.arange(n) * cells.shape[1] // n for n in (16, 17))
    cells = np.add.reduceat(np.add.reduceat(cells, rows, axis=1), columns, axis=2)
    cells /= np.outer(np.diff(rows, append=28), np.diff(columns, append=28))
    margin = 0.2 * cells.std(axis=(1, 2), keepdims=True)
    bits = np.packbits((np.diff(cells, axis=2) > margin).reshape(len(images), -1), axis=1)
    _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    firsts = first[inverse.ravel()]
    return np.where(firsts == np.arange(len(images)), -1, firsts)


def bars(count: int) -> np.ndarray:
    """Returns different pictures of horizontal bars, uint8[count, 28, 28, 1]."""
    rows = np.random.default_rng(0).integers(0, 256, (count, 28, 1, 1)).astype(np.uint8)
    return np.repeat(rows, 28, axis=2)


def measure(images: np.ndarray, method) -> dict:
    """Returns the record of a method."""
    chosen = images[np.random.default_rng(0).choice(len(images), COPIES, replace=False)]
    recall = {}
    for name, change in CHANGES.items():
        found = method(np.concatenate([chosen, change(chosen)]))[COPIES:]
        recall[name] = round(float(np.mean(found == np.arange(COPIES))), 4)
    began = time.process_time()
    near = method(images)
    return {
        'benchmark': 'near_duplicates',
        'method': method.__name__,
        'copies': COPIES,
        'recall': recall,
        'images': len(images),
        'near_duplicates': int((near >= 0).sum()),
        'cpu_seconds': round(time.process_time() - began, 1),
        'near_duplicates_of_200_bars': int((method(bars(200)) >= 0).sum()),
        'seed': 0,
        'numpy': np.__version__,
        **environment.machine(),
    }


def draw(images: np.ndarray, near: np.ndarray, count: int, path: Path) -> None:
    """Draws some of the pairs of near duplicates, drawn at random, one above the other."""
    from PIL import Image

    found = np.flatnonzero(near >= 0)
    some = np.random.default_rng(1).choice(found, min(count, len(found)), replace=False)
    pairs = np.concatenate([images[some], images[near[some]]], axis=1).squeeze(-1)
    rows = [np.concatenate(part, axis=1) for part in np.split(pairs, range(20, len(pairs), 20))]
    sheet = np.zeros((58 * len(rows), rows[0].shape[1]), np.uint8)
    for number, row in enumerate(rows):
        sheet[58 * number : 58 * number + 56, : row.shape[1]] = row
    Image.fromarray(sheet).resize((2 * sheet.shape[1], 2 * sheet.shape[0])).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, written anew')
    parser.add_argument('--data', default='fashion_mnist', help='data.name; images of 28x28')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--sheet', type=Path, help='a PNG file of 100 of the pairs that are found')
    args = parser.parse_args()
    config = defaults.get_config().data
    config.update(name=args.data, dir=args.data_dir)
    images = np.asarray(opening.open_source(config).images())
    if args.sheet:
        draw(images, by_pictures(images), 100, args.sheet)
        return
    with args.out.open('w') as file:
        for method in (by_pictures, by_difference_hash):
            record = measure(images, method) | {'data': args.data}
            file.write(json.dumps(record) + '\n')
            print(json.dumps(record))


if __name__ == '__main__':
    main()
