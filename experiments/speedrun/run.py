"""Trains a network to a test accuracy as fast as possible, over many seeds.

    python -m experiments.speedrun.run --rung=94 --seeds=50

The clock runs from the data on the device to the number of test images that are classified
correctly. It includes the order of the examples, the initial parameters, the whitening, the
training and the evaluation of all views; it leaves out the compilation, which is timed apart. One
run on a seed of its own warms up.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

from configs import cnn
from experiments.speedrun import training
from neptune_jax.data import dataset
from neptune_jax.devices import startup
from neptune_jax.runs import environment

RESULTS = Path(__file__).parent / 'results'

SHIFTS = ((0, 0), (-1, -1), (1, 1))


@dataclasses.dataclass(frozen=True)
class Rung:
    """What is trained, and how."""

    network: dict  # attributes of net.Network
    epochs: float
    batch_size: int
    rates: dict  # the highest learning rates of kernels, the last layer and biases
    augment: dict  # fields of the `augment` group of a config, where not off
    views: tuple  # of a test image: pixels down and to the right, and whether mirrored


def airbench(widths, epochs, depth=2, dtype=jnp.bfloat16, **more):
    """Returns a Rung like airbench's with Muon; `more` is augmentation."""
    return Rung(
        network={'widths': widths, 'depth': depth, 'dtype': dtype},
        epochs=epochs,
        batch_size=2000,
        rates={'kernel': 0.24, 'head': 0.0026, 'bias': 0.053},
        augment={'flip': 'alternating', 'translate': 2, **more},
        views=tuple((*shift, mirror) for shift in SHIFTS for mirror in (False, True)),
    )


RUNGS = {
    '94': airbench((64, 256, 256), epochs=8),
    '95': airbench((128, 384, 384), epochs=16),
    '96': airbench((128, 512, 512), epochs=60, depth=3, erase=0.5),
    # The rung 94 at a size that a CPU can try: it shows that the parts work together.
    'narrow': airbench((16, 32, 32), epochs=3, dtype=jnp.float32),
    'cpu90': Rung(
        network={'widths': (32, 64), 'depth': 1, 'patch': 3, 'stride': 2, 'pool': 1},
        epochs=2,
        batch_size=250,
        rates={'kernel': 0.15, 'head': 0.08, 'bias': 0.01},
        augment={},
        views=((0, 0, False),),
    ),
}


def load(name, data_dir, split='test'):
    """Returns a Dataset to be evaluated on `split`; unless that is 'val', all others train."""
    config = cnn.get_config().data
    config.update(name=name, dir=data_dir, val_fraction=0.1 if split == 'val' else 0.0)
    return dataset.load(config)


def train(rung, seeds, data, split, together):
    """Yields a record for each seed."""
    in_one_program = jax.default_backend() != 'cpu'
    runner = training.Runner(RUNGS[rung], data, split, together, in_one_program)
    runner([seeds + i for i in range(together)])  # warms up
    for first in range(0, seeds, together):
        chosen = [first + i for i in range(together)]
        accuracies, seconds = runner(chosen)
        for seed, accuracy in zip(chosen, accuracies.tolist(), strict=True):
            yield {
                'rung': rung,
                'seed': seed,
                'split': split,
                'accuracy': accuracy,
                'seconds': round(seconds / together, 4),
                'seeds_at_once': together,
                'compile_seconds': round(runner.compile_seconds, 2),
                **environment(),
            }


def environment():
    """Returns what a result depends on besides the program: hardware and versions."""
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
    device = jax.devices()[0]
    return {
        'hardware': environment.processor() if device.platform == 'cpu' else device.device_kind,
        'cpu_count': os.cpu_count(),
        'versions': {'python': platform.python_version()}
        | {name: metadata.version(name) for name in packages},
    }


def summary(records):
    """Returns a line on the accuracy and the time of a rung's records."""
    accuracies, seconds = ([record[key] for record in records] for key in ('accuracy', 'seconds'))
    return (
        f'{len(records)} seeds: accuracy {statistics.mean(accuracies):.4f} '
        f'(lowest {min(accuracies):.4f}, highest {max(accuracies):.4f}), '
        f'{statistics.median(seconds):.3f} s a seed ({min(seconds):.3f} to {max(seconds):.3f}), '
        f'compiled in {records[0]["compile_seconds"]:.1f} s'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rung', choices=RUNGS, default='94')
    parser.add_argument('--seeds', type=int, default=50)
    parser.add_argument('--together', type=int, default=1, help='seeds in one program; GPU or TPU')
    parser.add_argument('--split', choices=('test', 'val'), default='test', help='val: to tune')
    parser.add_argument('--out', type=Path, help='JSON lines; default: results/RUNG.jsonl')
    parser.add_argument('--data_name', default='fashion_mnist')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    args = parser.parse_args()
    if args.seeds % args.together:
        parser.error('--seeds must be a multiple of --together')
    startup.prepare()
    data = load(args.data_name, args.data_dir, args.split)
    records, out = [], args.out or RESULTS / f'{args.rung}.jsonl'
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open('w') as file:
        for record in train(args.rung, args.seeds, data, args.split, args.together):
            records.append(record)
            file.write(json.dumps(record) + '\n')
            file.flush()
            print(f'seed {record["seed"]}: {record["accuracy"]:.4f} in {record["seconds"]:.3f} s')
    print(summary(records))


if __name__ == '__main__':
    main()
