"""Trains a network to a test accuracy as fast as possible, over many seeds.

    python -m experiments.speedrun.run --rung=94 --seeds=50

The clock runs from the data on the device to the number of test images that are classified
correctly. It includes the order of the examples, the initial parameters, the whitening, the
training and the evaluation of all views. It leaves out the compilation, which is timed apart. One
run on a seed of its own warms up.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jax

from experiments.speedrun import config as rungs
from experiments.speedrun import training
from neptune_jax import experiment
from neptune_jax.devices import startup
from neptune_jax.runs import environment

RESULTS = Path(__file__).parent / 'results'


def create(
    rung: str, data_name: str = 'fashion_mnist', data_dir: str = '', split: str = 'test'
) -> experiment.Experiment:
    """Returns the Experiment of a rung, on one device.

    It trains on all images but the test images and, if it is to be evaluated on `split` 'val', a
    tenth of each class.
    """
    config = rungs.get_config(rung)
    config.data.update(name=data_name, dir=data_dir, mode='device')
    config.data.val_fraction = 0.1 if split == 'val' else 0.0
    config.parallel.update(driver='jit', num_devices=1)
    return experiment.create(config)


def train(
    rung: str, seeds: int, data_name: str, data_dir: str, split: str, together: int
) -> Iterator[dict]:
    """Yields a record for each seed."""
    in_one_program = jax.default_backend() != 'cpu'
    created = create(rung, data_name, data_dir, split)
    runner = training.Runner(created, split, together, in_one_program)
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
                **hardware_and_versions(),
            }


def hardware_and_versions() -> dict:
    """Returns what a result depends on besides the program."""
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
    device = jax.devices()[0]
    return {
        'hardware': environment.processor() if device.platform == 'cpu' else device.device_kind,
        'cpu_count': os.cpu_count(),
        'versions': {'python': platform.python_version()}
        | {name: metadata.version(name) for name in packages},
    }


def summary(records: list[dict]) -> str:
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
    parser.add_argument('--rung', choices=rungs.RUNGS, default='94')
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
    records, out = [], args.out or RESULTS / f'{args.rung}.jsonl'
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open('w') as file:
        for record in train(
            args.rung, args.seeds, args.data_name, args.data_dir, args.split, args.together
        ):
            records.append(record)
            file.write(json.dumps(record) + '\n')
            file.flush()
            print(f'seed {record["seed"]}: {record["accuracy"]:.4f} in {record["seconds"]:.3f} s')
    print(summary(records))


if __name__ == '__main__':
    main()
