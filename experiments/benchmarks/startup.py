"""How long `python -m neptune_jax.main` takes to its first training step.

    python -m experiments.benchmarks.startup

The time is that from the start of the process to the line of its first step: once with an empty
compilation cache, then several times with the filled one. The data set is prepared before.
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

RESULTS = Path(__file__).parent / 'results/startup.jsonl'


def seconds_to_first_step(config: str, folder: str, number: int | str) -> float:
    """Runs four steps of a config and returns the seconds until the first one was reported.

    Args:
        config: a name in configs/.
        folder: where the data set, the compilation cache and the run directories are.
        number: of this run; the runs of a config need different ones.
    """
    command = [sys.executable, '-u', '-m', 'neptune_jax.main', f'--config=configs/{config}.py']
    command += ['--config.data.name=fashion_mnist_mini', f'--config.data.dir={folder}/data']
    command += ['--config.train.steps=4', '--config.log.every=1 step']
    command += [f'--workdir={folder}/{config}-{number}']
    environ = os.environ | {'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache'}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        seconds = [
            time.perf_counter() - began for line in process.stdout if line.startswith('step ')
        ]
    if process.returncode:
        raise RuntimeError('the training has failed; its output is above')
    return seconds[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--configs', default='cnn,cnn3,resnet20')
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    with args.out.open('w') as file:
        for config in args.configs.split(','):
            with tempfile.TemporaryDirectory() as folder:
                seconds_to_first_step(config, folder, 'prepares')
                for path in Path(folder, 'cache').iterdir():
                    path.unlink()
                cold, *warm = (
                    seconds_to_first_step(config, folder, number)
                    for number in range(args.rounds + 1)
                )
            record = {
                'benchmark': 'startup',
                'config': config,
                'cold_seconds': round(cold, 2),
                'warm_seconds': [round(seconds, 2) for seconds in warm],
                'warm_median': round(statistics.median(warm), 2),
                **environment.machine(),
                'jax': jax.__version__,
            }
            file.write(json.dumps(record) + '\n')
            file.flush()
            print(record)


if __name__ == '__main__':
    main()
