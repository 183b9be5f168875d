"""Trains the four networks over seeds, one command each, and collects their summaries.

    python experiments/four_networks/run.py --out=experiments/four_networks/results/accuracy.jsonl
    python experiments/four_networks/run.py --table=experiments/four_networks/results/accuracy.jsonl

The first needs about an hour on two CPU cores. Interrupted, it goes on where it was. Flags after
`--` go to every run: `-- --config.train.epochs=1`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

NETWORKS = ('cnn', 'cnn3', 'simple_net', 'net')


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
        **{key: summary[key] for key in keys},
        **{key: environment[key] for key in origin},
    }


def table(records):
    """Returns a Markdown table: mean and sample deviation over seeds for each network."""
    lines = [
        '| config | parameters | test accuracy | seeds | images/s | training |',
        '|---|---:|---:|---:|---:|---:|',
    ]
    for network in NETWORKS:
        runs = [record for record in records if record['network'] == network]
        accuracies = [record['test']['accuracy'] for record in runs]
        mean = f'{statistics.mean(accuracies):.4f}'
        if len(runs) > 1:
            mean += f' ± {statistics.stdev(accuracies):.4f}'
        speed = statistics.median(record['images_per_second'] for record in runs)
        seconds = statistics.median(record['train_seconds'] for record in runs)
        lines.append(
            f'| `{network}` | {runs[0]["params"]:,} | {mean} | {len(runs)} | {speed:,.0f} '
            f'| {seconds:,.0f} s |'
        )
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, help='JSON lines, one a run; finished runs are kept')
    parser.add_argument('--table', type=Path, help='print the table of such a file and leave')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--runs', type=Path, default=Path('runs/four_networks'))
    parser.add_argument('flags', nargs='*', help='more flags for each run, after --')
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for line in args.table.read_text().splitlines()]))
        return
    records = args.out.read_text().splitlines() if args.out.is_file() else []
    done = {(record['network'], record['seed']) for record in map(json.loads, records)}
    for seed in range(args.seeds):
        for network in NETWORKS:
            if (network, seed) not in done:
                record = train(network, seed, args.runs / f'{network}-{seed}', args.flags)
                with args.out.open('a') as file:
                    file.write(json.dumps(record) + '\n')


if __name__ == '__main__':
    main()
