"""What sending a run to Neptune costs its training, with a server that no longer answers.

    python -m experiments.benchmarks.tracking

`cnn` on Fashion-MNIST takes rounds of some steps and writes rows of metrics. In alternation, the
process that sends the rows runs, or it is stopped, which costs as little as if there were none. The
server is frozen after it has received the first rows. A second measurement is the time that writing
a row takes.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from configs import cnn
from experiments.benchmarks.data import Training
from neptune_jax.runs import files, writer
from neptune_jax.testing import neptune_server as server

RESULTS = Path(__file__).parent / 'results/tracking.jsonl'
ROWS = 20_000


def measure(data_dir: str, rounds: int, steps: int, every: int) -> dict:
    """Returns a record of the ratio of throughputs and of the cost of a row.

    Args:
        data_dir: where tfds keeps its data.
        rounds: pairs of rounds, after one that warms up.
        steps: of a round.
        every: steps from row to row.
    """
    config = cnn.get_config()
    config.data.dir = data_dir
    training = Training(config)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        run = writer.Run(Path(folder, 'run'))
        run.workdir.mkdir()
        stack.callback(run.close)
        stack.enter_context(files.locked(run.path('.lock')))
        files.write_json(run.path('config.json'), json.loads(config.to_json()))
        run.write(0, _values())
        tracker = stack.enter_context(server.start(Path(folder, 'record.json')))
        process = subprocess.Popen(
            [sys.executable, '-m', 'neptune_jax.sync', str(run.workdir), '--follow'],
            env=os.environ | {'NEPTUNE_API_TOKEN': tracker.token, 'NEPTUNE_PROJECT': 'lab/images'},
        )
        stack.callback(process.kill)
        while not run.path('sync/neptune.json').is_file():
            time.sleep(0.1)
        tracker.send_signal(signal.SIGSTOP)

        seconds = {signal.SIGCONT: [], signal.SIGSTOP: []}
        step = 0
        for number in range(rounds + 1):
            for state in seconds:
                process.send_signal(state)
                began = time.perf_counter()
                for _ in range(steps // every):
                    training.take(every)
                    step += every
                    run.write(step, _values())
                jax.block_until_ready(training.state)
                if number:  # the first pair warms up
                    seconds[state].append(time.perf_counter() - began)
        process.send_signal(signal.SIGCONT)
        cost = _cost_of_a_row(folder)
    ratios = [off / on for on, off in zip(*seconds.values(), strict=True)]
    return {
        'benchmark': 'tracking',
        'rounds': rounds,
        'steps_a_round': steps,
        'steps_a_row': every,
        'seconds_with_a_frozen_server': [round(value, 4) for value in seconds[signal.SIGCONT]],
        'seconds_disabled': [round(value, 4) for value in seconds[signal.SIGSTOP]],
        'median_ratio_of_throughput': round(statistics.median(ratios), 4),
        'quartiles': [round(value, 4) for value in statistics.quantiles(ratios)[::2]],
        'microseconds_a_row': cost,
        'environment': training.environment(),
    }


def _values():
    names = ('loss', 'accuracy', 'grad_norm', 'learning_rate')
    return {f'train/{name}': time.time() % 1 for name in names}


def _cost_of_a_row(folder):
    """Returns the microseconds that writing a row takes: minimum and median of nine rounds."""
    run = writer.Run(Path(folder))
    costs = []
    for _ in range(9):
        values = _values()
        began = time.perf_counter()
        for step in range(ROWS):
            run.write(step, values)
        costs.append(1e6 * (time.perf_counter() - began) / ROWS)
    run.close()
    return {'least': round(min(costs), 1), 'median': round(statistics.median(costs), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--every', type=int, default=10, help='steps from row to row')
    args = parser.parse_args()
    record = measure(args.data_dir, args.rounds, args.steps, args.every)
    args.out.write_text(json.dumps(record) + '\n')
    print(record)


if __name__ == '__main__':
    main()
