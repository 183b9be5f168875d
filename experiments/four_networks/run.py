"""Trains the four networks over seeds, one command each, and collects their results.

    python experiments/four_networks/run.py --out=experiments/four_networks/results/accuracy.jsonl
    python experiments/four_networks/run.py --out=experiments/four_networks/results/speed.jsonl \\
        --seeds=1 --runs=runs/four_networks_speed -- --config.train.epochs=1
    python experiments/four_networks/run.py

The first takes about an hour on two CPU cores; interrupted, it goes on where it was. The last
prints the table of both.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

NETWORKS = ('cnn', 'cnn3', 'simple_net', 'net')
RESULTS = Path(__file__).parent / 'results'


def train(network, seed, workdir, flags):
    """Runs one training through the command line and returns the record of its results."""
    command = [sys.executable, '-m', 'neptune_jax.main', f'--config=configs/{network}.py']
    command += [f'--config.seed={seed}', f'--workdir={workdir}', *flags]
    subprocess.run(command, check=True)
    summary, environment = (
        json.loads((workdir / name).read_text()) for name in ('summary.json', 'environment.json')
    )
    keys = ('step', 'epochs', 'params', 'train_seconds', 'images_per_second', 'best', 'test')
    origin = ('processor', 'cpu_count', 'devices', 'driver', 'python', 'packages', 'git')
    return {
        'network': network,
        'seed': seed,
        'flags': flags,
        **{key: summary[key] for key in keys},
        **{key: environment[key] for key in origin},
    }


def table(accuracy, speed):
    """Returns a Markdown table: mean and sample deviation over seeds, and what an epoch takes.

    Args:
        accuracy: records of whole trainings, several seeds a network.
        speed: records of one epoch each, on a machine that did nothing else.
    """
    lines = [
        '| config | parameters | test accuracy | images/s | one epoch |',
        '|---|---:|---:|---:|---:|',
    ]
    for network in NETWORKS:
        runs = [record for record in accuracy if record['network'] == network]
        (timed,) = (record for record in speed if record['network'] == network)
        tests = [record['test']['accuracy'] for record in runs]
        lines.append(
            f'| `{network}` | {runs[0]["params"]:,} '
            f'| {statistics.mean(tests):.4f} ± {statistics.stdev(tests):.4f} '
            f'| {timed["images_per_second"]:,.0f} | {timed["train_seconds"]:.0f} s |'
        )
    return '\n'.join(lines)


def read(path):
    """Returns the records of a file of results; none where it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, help='JSON lines, one a run; those in it are not rerun')
    parser.add_argument('--networks', default=','.join(NETWORKS))
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--runs', type=Path, default=Path('runs/four_networks'))
    parser.add_argument('flags', nargs='*', help='more flags for each run, after --')
    args = parser.parse_args()
    if not args.out:
        print(table(read(RESULTS / 'accuracy.jsonl'), read(RESULTS / 'speed.jsonl')))
        return
    done = {(record['network'], record['seed']) for record in read(args.out)}
    for seed in range(args.seeds):
        for network in args.networks.split(','):
            if (network, seed) not in done:
                record = train(network, seed, args.runs / f'{network}-{seed}', args.flags)
                with args.out.open('a') as file:
                    file.write(json.dumps(record) + '\n')


if __name__ == '__main__':
    main()
