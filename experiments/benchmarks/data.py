"""What data cost: feeding a training from memory or from files, preparing and loading data sets.

    python -m experiments.benchmarks.data

Throughput: `cnn3` in batches of 128 on Fashion-MNIST in the modes 'device', 'host' and 'stream'.
They take turns, some steps each a round, and are compared round by round. Memory: the largest
resident set of a training that streams 200,000 images of 32x32x3. Folder: a folder of 20,000 JPEG
images of mixed sizes, prepared and opened again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from configs import cnn, cnn3, image_folder
from neptune_jax import experiment
from neptune_jax.data import dataset, feed
from neptune_jax.runs import environment
from neptune_jax.training import compiled

MODES = ('device', 'host', 'stream')
RESULTS = Path(__file__).parent / 'results/data.jsonl'


class Training:
    """A training without rows, evaluations and checkpoints, whose steps the caller takes."""

    def __init__(self, config: ConfigDict):
        config.train.epochs = 1000.0
        self.experiment = experiment.create(config)
        self._feed = feed.create(self.experiment.dataset, self.experiment.parallel)
        self._step = compiled.compile_train_step(self.experiment, self._feed)
        self._items = self._feed.batches(
            self.experiment.order, 0, self.experiment.total_steps, config.data.workers
        )
        self.state = experiment.init_state(self.experiment)

    def take(self, steps: int) -> None:
        """Starts the given number of steps. They may still run when it returns."""
        for _ in range(steps):
            self.state, self._metrics = self._step(self.state, self._feed.data, next(self._items))

    def loss(self) -> float:
        """Returns the loss before the last step, of its batch."""
        return float(self._metrics['loss'])

    def environment(self) -> dict:
        """Returns versions and hardware, for a record of results."""
        found = environment.collect(self.experiment.parallel, {})
        del found['command']  # it has paths of the machine
        return found

    def images_per_second(self, steps: int) -> float:
        """Takes the given number of steps, waits for them, and returns their throughput."""
        began = time.perf_counter()
        self.take(steps)
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - began
        return steps * self.experiment.config.train.batch_size / seconds


def throughput(data_dir: str, rounds: int, steps: int) -> Iterator[dict]:
    """Yields a record for each mode: images/s of every round, and their ratio to 'device'."""
    trainings = {}
    for mode in MODES:
        config = cnn3.get_config()
        config.data.update(dir=data_dir, mode=mode)
        trainings[mode] = Training(config)
    speeds = {mode: [] for mode in MODES}
    for number in range(rounds + 1):
        for mode, training in trainings.items():
            speed = training.images_per_second(steps)
            if number:  # the first round warms up
                speeds[mode].append(speed)
    for mode, training in trainings.items():
        ratios = [own / base for own, base in zip(speeds[mode], speeds['device'], strict=True)]
        yield {
            'benchmark': 'throughput',
            'mode': mode,
            'rounds': rounds,
            'steps_a_round': steps,
            'images_per_second': [round(speed, 1) for speed in speeds[mode]],
            'median_ratio_to_device': round(statistics.median(ratios), 4),
            'environment': training.environment(),
        }


def memory(data_dir: str, examples: int, steps: int) -> dict:
    """Returns a record of the resident memory of a training that streams."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'neptune_jax.main', '--config=configs/cnn.py']
        command += ['--config.data.name=synthetic', f'--config.data.examples={examples}']
        command += ['--config.data.image_size=32,32', '--config.data.channels=3']
        command += [f'--config.data.dir={data_dir}', '--config.data.mode=stream']
        command += [f'--config.train.steps={steps}', f'--config.eval.every={steps} steps']
        subprocess.run([*command, f'--workdir={folder}/prepare'], check=True)  # the data set
        process = subprocess.Popen([*command, f'--workdir={folder}/measure'])
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError('the training has failed; its output is above')
    return {
        'benchmark': 'memory',
        'examples': examples,
        'image_shape': [32, 32, 3],
        'steps': steps,
        # The larger of the trainer and the process that reads for it.
        'largest_resident_mib': round(usage.ru_maxrss / 1024),
    }


def folder(count: int) -> dict:
    """Returns a record of the time that a folder of images takes, and of the cores in use."""
    rng = np.random.default_rng(0)
    config = image_folder.get_config()
    with tempfile.TemporaryDirectory() as root:
        for i in range(count):
            path = Path(root, f'images/train/{i % 10}/{i}.jpg')
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(150, 350, 2)
            # Smooth noise compresses as photographs do.
            small = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
            Image.fromarray(small).resize((width, height)).save(path, quality=85)
        config.data.path, config.data.dir = f'{root}/images', f'{root}/data'
        config.data.channels, config.data.resize = 3, 'crop'
        before, began = os.times(), time.perf_counter()
        dataset.load(config.data)
        prepared, after = time.perf_counter() - began, os.times()
        began = time.perf_counter()
        dataset.load(config.data)
        again = time.perf_counter() - began
    return {
        'benchmark': 'folder',
        'images': count,
        'prepare_seconds': round(prepared, 1),
        'cores_busy': round((sum(after[:4]) - sum(before[:4])) / prepared, 2),
        'open_again_seconds': round(again, 2),
    }


def loading(data_dir: str) -> dict:
    """Returns a record of the time to load Fashion-MNIST, prepared before, into memory."""
    config = cnn.get_config().data
    config.dir = data_dir
    dataset.load(config)
    began = time.perf_counter()
    np.array(dataset.load(config).images)
    return {'benchmark': 'loading', 'seconds': round(time.perf_counter() - began, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--examples', type=int, default=200_000, help='images that are streamed')
    parser.add_argument('--images', type=int, default=20_000, help='images in the folder')
    args = parser.parse_args()
    with args.out.open('w') as file:
        for record in (
            folder(args.images),
            loading(args.data_dir),
            memory(args.data_dir, args.examples, 200),
            *throughput(args.data_dir, args.rounds, args.steps),
        ):
            file.write(json.dumps(record) + '\n')
            print(record)


if __name__ == '__main__':
    main()
