"""How a training's throughput grows with the number of devices.

    python -m experiments.benchmarks.scaling

`cnn3` on Fashion-MNIST trains on 1, 2, 4 and 8 devices, as far as there are that many, with the
same number of images a device. On a CPU virtual devices share the cores. There no throughput is
measured but whether the numbers agree: the loss of a global batch must not depend on how it is
divided.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from configs import cnn3
from experiments.benchmarks.data import Training
from neptune_jax.runs import environment

COUNTS = (1, 2, 4, 8)
RESULTS = Path(__file__).parent / 'results/scaling.jsonl'


def training(data_dir: str, count: int, batch_size: int) -> Training:
    """Returns a training of `cnn3` on `count` devices, with global batches of `batch_size`."""
    config = cnn3.get_config()
    config.data.dir = data_dir
    config.parallel.num_devices = count
    config.train.batch_size = batch_size
    return Training(config)


def throughput(
    data_dir: str, counts: Sequence[int], per_device: int, rounds: int, steps: int
) -> Iterator[dict]:
    """Yields a record for each number of devices: images/s, and their ratio to one device's."""
    trainings = {count: training(data_dir, count, count * per_device) for count in counts}
    speeds = {count: [] for count in counts}
    for number in range(rounds + 1):
        for count, each in trainings.items():
            speed = each.images_per_second(steps)
            if number:  # the first round warms up
                speeds[count].append(speed)
    for count in counts:
        ratios = [many / one for many, one in zip(speeds[count], speeds[counts[0]], strict=True)]
        yield {
            'devices': count,
            'images_per_second': round(statistics.median(speeds[count]), 1),
            'against_one_device': round(statistics.median(ratios), 3),
        }


def agreement(data_dir: str, counts: Sequence[int], batch_size: int, steps: int) -> Iterator[dict]:
    """Yields a record for each number of devices: the loss after some steps."""
    for count in counts:
        each = training(data_dir, count, batch_size)
        each.take(steps)
        yield {'devices': count, 'loss_after': steps, 'loss': each.loss()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--batch_size', type=int, default=512, help='images a device')
    args = parser.parse_args()
    jax.config.update('jax_num_cpu_devices', COUNTS[-1])
    counts = [count for count in COUNTS if count <= len(jax.devices())]
    if jax.default_backend() == 'cpu':
        records = agreement(args.data_dir, counts, batch_size=128, steps=10)
    else:
        records = throughput(args.data_dir, counts, args.batch_size, args.rounds, args.steps)
    with args.out.open('w') as file:
        for record in records:
            devices = jax.devices()
            record |= {
                'benchmark': 'scaling',
                'device': devices[0].device_kind,
                'jax': jax.__version__,
                'processor': environment.processor(),
            }
            print(record)
            file.write(json.dumps(record) + '\n')


if __name__ == '__main__':
    main()
