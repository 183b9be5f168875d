"""How many runs an hour a sweep trains with one worker and with several.

    python -m experiments.benchmarks.sweeps

Each sweep trains the same seeds of a config from configs/ through `python -m neptune_jax.sweep`;
the time is that of the whole command. The numbers of workers take turns, so that what else the
machine does falls on all of them. The data are prepared and the programs compiled before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from neptune_jax.runs import environment

RESULTS = Path(__file__).parent / 'results/sweeps.jsonl'


def seconds(
    config: str, workers: int, seeds: int, epochs: float, folder: str, number: int
) -> float:
    """Returns the seconds that a sweep over seeds takes.

    Args:
        config: a name in configs/.
        workers: how many.
        seeds: how many trials.
        epochs: of each training.
        folder: where the runs, the data and the compiled programs are.
        number: of this sweep.
    """
    command = [sys.executable, '-m', 'neptune_jax.sweep', f'--config=configs/{config}.py']
    command += [f'--config.data.dir={folder}/data', f'--config.train.epochs={epochs}']
    command += [f'--grid=seed=0:{seeds}', f'--workers={workers}', f'--out={folder}/{number}']
    environ = os.environ | {'JAX_COMPILATION_CACHE_DIR': f'{folder}/compiled'}
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, which are added')
    parser.add_argument('--configs', default='simple_net')
    parser.add_argument('--workers', default='1,2')
    parser.add_argument('--seeds', type=int, default=4)
    parser.add_argument('--epochs', type=float, default=5.0)
    parser.add_argument('--rounds', type=int, default=2)
    args = parser.parse_args()
    counts = [int(count) for count in args.workers.split(',')]
    for config in args.configs.split(','):
        found: dict[int, list[float]] = {count: [] for count in counts}
        with tempfile.TemporaryDirectory() as folder:
            for count in counts:  # a program is compiled for the number of its threads
                seconds(config, count, count, 0.1, folder, -count)
            for number in range(args.rounds * len(counts)):
                count = counts[number % len(counts)]
                found[count].append(seconds(config, count, args.seeds, args.epochs, folder, number))
        for count in counts:
            record = {
                'benchmark': 'sweeps',
                'config': config,
                'workers': count,
                'seeds': args.seeds,
                'epochs': args.epochs,
                'seconds': [round(each, 1) for each in found[count]],
                'runs_an_hour': round(3600 * args.seeds / statistics.median(found[count]), 1),
                'load': round(os.getloadavg()[0], 1),
                **environment.machine(),
                'jax': jax.__version__,
            }
            print(record)
            with args.out.open('a') as file:
                file.write(json.dumps(record) + '\n')


if __name__ == '__main__':
    main()
