"""How fast a training step is with the JAX that each version of Python gets.

    python -m experiments.benchmarks.versions --python=3.12=PATH --python=3.11=PATH
    python -m experiments.benchmarks.versions --report

Each interpreter runs ours and plain Flax, from the same parameters on the same batches, each in a
process. The processes take turns, some steps each a round; a ratio is of two processes in one
round. Both forms renew the pages that show the results.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks import training
from neptune_jax.runs import environment

RESULTS = training.RESULTS.with_name('python_versions.jsonl')
NETWORK, BATCH_SIZE = 'cnn3', 128
ASK = (
    'import flax, jax, platform; '
    'print(platform.python_version(), jax.__version__, flax.__version__)'
)


def measure(pythons, data_dir, rounds, steps):
    """Yields a record for each interpreter (by a name) and each of the two contestants."""
    with tempfile.TemporaryDirectory() as folder:
        training.prepare(folder, NETWORK, data_dir)
        processes = {
            (version, name): training.Process(name, NETWORK, BATCH_SIZE, folder, {'': python})
            for version, python in pythons.items()
            for name in (training.OURS, training.BASE)
        }
        rates = {key: [] for key in processes}
        for number in range(rounds + 1):
            for key, process in processes.items():
                seconds = process.ask('train', steps)['seconds']
                if number:  # the first round warms up
                    rates[key].append(steps * BATCH_SIZE / seconds)
        for process in processes.values():
            process.end()
    for (version, name), own in rates.items():
        answer = subprocess.run(
            [pythons[version], '-c', ASK], capture_output=True, text=True, check=True
        )
        python, jax, flax = answer.stdout.split()
        yield {
            'benchmark': 'python versions',
            'network': NETWORK,
            'batch_size': BATCH_SIZE,
            'contestant': name,
            'steps_a_round': steps,
            'images_per_second': np.round(own, 1).tolist(),
            'python': python,
            'jax': jax,
            'flax': flax,
            'processor': environment.processor(),
            'cpu_count': os.cpu_count(),
        }


def report(path=RESULTS):
    """Returns a Markdown table of the results: images per second, medians over rounds."""
    if not path.is_file():
        return 'Not run.'
    records = [json.loads(line) for line in path.read_text().splitlines()]
    rates = {(each['python'], each['contestant']): each['images_per_second'] for each in records}
    lines = [
        '| Python | JAX | Flax | neptune_jax, images/s | plain Flax, images/s | ratio |',
        '|---|---|---|---:|---:|---:|',
    ]
    for each in records:
        if each['contestant'] == training.OURS:
            ours = np.array(each['images_per_second'])
            plain = np.array(rates[each['python'], training.BASE])
            lines.append(
                f'| {each["python"]} | {each["jax"]} | {each["flax"]} | {np.median(ours):,.0f} '
                f'| {np.median(plain):,.0f} | {np.median(ours / plain):.2f} |'
            )
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--python', action='append', default=[], help='NAME=INTERPRETER')
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, written anew')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--rounds', type=int, default=11)
    parser.add_argument('--steps', type=int, default=8, help='that each takes a round')
    parser.add_argument('--report', action='store_true', help='show the results that there are')
    args = parser.parse_args()
    from experiments import pages  # which imports this module for its table

    if not args.report:
        pythons = dict(pair.split('=', 1) for pair in args.python)
        records = list(measure(pythons, args.data_dir, args.rounds, args.steps))
        args.out.write_text(''.join(json.dumps(record) + '\n' for record in records))
    print(report(args.out))
    pages.write()


if __name__ == '__main__':
    main()
