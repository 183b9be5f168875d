"""What saving checkpoints costs a training.

    python -m experiments.benchmarks.checkpoints

`cnn` on Fashion-MNIST takes rounds of some steps, in alternation with one save in the middle and
without. The difference in time is the cost of a save. Divided by 60 seconds, it is the share of a
training's time that one save a minute takes.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax

from configs import cnn
from experiments.benchmarks.data import Training
from neptune_jax.learning.state import count_params
from neptune_jax.runs import checkpoints

RESULTS = Path(__file__).parent / 'results/checkpoints.jsonl'


def measure(data_dir: str, rounds: int, steps: int) -> dict:
    """Returns a record of the seconds of each pair of rounds, and of a checkpoint's size."""
    config = cnn.get_config()
    config.data.dir = data_dir
    training = Training(config)
    seconds = {True: [], False: []}
    with (
        tempfile.TemporaryDirectory() as folder,
        checkpoints.open_checkpoints(Path(folder, 'checkpoints'), keep=2) as saved,
    ):
        data = training.experiment.dataset.preprocessing | {'interval': []}
        for number in range(rounds + 1):
            for saves in (True, False):
                began = time.perf_counter()
                training.take(steps // 2)
                if saves:
                    saved.save(number, training.state, data)
                training.take(steps - steps // 2)
                jax.block_until_ready(training.state)
                if number:  # the first pair warms up
                    seconds[saves].append(time.perf_counter() - began)
        saved.wait()
        latest = Path(folder, f'checkpoints/{rounds}')
        size = sum(path.stat().st_size for path in latest.rglob('*') if path.is_file())
    costs = [with_it - without for with_it, without in zip(*seconds.values(), strict=True)]
    return {
        'benchmark': 'checkpoints',
        'rounds': rounds,
        'steps_a_round': steps,
        'seconds_with_a_save': [round(value, 4) for value in seconds[True]],
        'seconds_without': [round(value, 4) for value in seconds[False]],
        'median_cost_of_a_save_seconds': round(statistics.median(costs), 4),
        'share_of_a_minute': round(statistics.median(costs) / 60, 5),
        'checkpoint_bytes': size,
        'bytes_beyond_three_copies': size - 3 * 4 * count_params(training.state.params),
        'environment': training.environment(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--steps', type=int, default=40)
    args = parser.parse_args()
    record = measure(args.data_dir, args.rounds, args.steps)
    args.out.write_text(json.dumps(record) + '\n')
    print(record)


if __name__ == '__main__':
    main()
