"""How fast the same network is trained here and in what people would use instead.

    python -m experiments.benchmarks.training
    python -m experiments.benchmarks.training --networks=cnn3 --batch_sizes=128 --rounds=7
    python -m experiments.benchmarks.training --report

Each contestant (contestants.py) is a process that starts from the same parameters and takes the
same batches of Fashion-MNIST. They take turns, some steps each a round; a ratio is of two
contestants in one round. `--python=torch=PATH` names another interpreter for the contestants whose
name begins with `torch`; requirements-bench.txt lists what they need.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks import contestants

HERE = Path(__file__).parent
RESULTS = HERE / 'results/training.jsonl'
BASE = 'flax'


class Process:
    """A contestant's process, waiting for commands."""

    def __init__(self, name, network, batch_size, folder, pythons):
        interpreter = next(
            (pythons[key] for key in pythons if name.startswith(key)), sys.executable
        )
        environ = os.environ | {
            'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache/{name.replace(" ", "_")}',
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
            'TORCHINDUCTOR_CACHE_DIR': f'{folder}/cache/{name.replace(" ", "_")}',
            'PYTHONPATH': str(HERE.parents[1]),
        }
        command = [interpreter, contestants.__file__, name, network, str(batch_size), folder]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        self.initial_loss = self._answer()['initial_loss']
        self.seconds_to_first_step = time.perf_counter() - began

    def ask(self, command):
        self._process.stdin.write(command + '\n')
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError('a contestant has ended; what it said is above')
        return json.loads(line)

    def end(self):
        self._process.communicate()


def prepare(folder, network, data_dir):
    """Leaves data.npz and params.npz in a folder; returns the number of parameters."""
    import jax
    from flax.traverse_util import flatten_dict

    from configs import cnn3, simple_net
    from neptune_jax import models
    from neptune_jax.data import dataset
    from neptune_jax.state import count_params

    config = {'cnn3': cnn3, 'simple_net': simple_net}[network].get_config()
    config.data.update(dir=data_dir, standardize='fashion_mnist')
    data = dataset.load(config.data)
    images = data.standardizer(np.asarray(data.images, np.float32) / 255)
    train, test = data.splits['train'], data.splits['test']
    np.savez(
        f'{folder}/data.npz',
        images=np.asarray(images)[train],
        labels=data.labels[train],
        test_images=np.asarray(images)[test],
        test_labels=data.labels[test],
    )
    model = models.create_model(config.model, len(data.class_names))
    params = model.init(jax.random.key(0), np.zeros((1, *data.image_shape), np.float32))['params']
    np.savez(f'{folder}/params.npz', **flatten_dict(params, sep='/'))
    return count_params(params)


def compare(network, batch_size, names, folder, args):
    """Yields a record for each contestant, all of them measured in alternation."""
    cold, processes = {}, {}
    for name in names:
        process = Process(name, network, batch_size, folder, args.python)
        cold[name] = process.seconds_to_first_step
        process.end()
        processes[name] = Process(name, network, batch_size, folder, args.python)
    losses = {name: process.initial_loss for name, process in processes.items()}
    for name, loss in losses.items():
        if abs(loss - losses[BASE]) > (0.02 if 'bfloat16' in name else 1e-3):
            raise RuntimeError(f'{name} starts from a loss of {loss}, {BASE} of {losses[BASE]}')
    train, evaluate = ({name: [] for name in names} for _ in range(2))
    for number in range(args.rounds + 1):
        for name, process in processes.items():
            trained = process.ask(f'train {args.steps}')
            tested = process.ask('evaluate')
            if number:  # the first round warms up
                train[name].append(args.steps * batch_size / trained['seconds'])
                evaluate[name].append(args.test_images / tested['seconds'])
            processes[name].last = tested
    accuracies = {name: process.last['result'] for name, process in processes.items()}
    for process in processes.values():
        process.end()
    for name in names:
        ratios = np.divide(train[name], train[BASE])
        yield {
            'benchmark': 'training',
            'network': network,
            'batch_size': batch_size,
            'contestant': name,
            'device': 'cpu',
            'steps_a_round': args.steps,
            'train_images_per_second': np.round(train[name], 1).tolist(),
            'ratio_to_flax': np.round(np.percentile(ratios, [25, 50, 75]), 3).tolist(),
            'evaluation_images_per_second': np.round(evaluate[name], 1).tolist(),
            'evaluation_ratio_to_flax': np.round(
                np.percentile(np.divide(evaluate[name], evaluate[BASE]), [25, 50, 75]), 3
            ).tolist(),
            'epoch_seconds': round(args.train_images / float(np.median(train[name])), 2),
            'first_step_seconds': {
                'cold': round(cold[name], 2),
                'cached': round(processes[name].seconds_to_first_step, 2),
            },
            'initial_loss': round(losses[name], 4),
            'test_accuracy': accuracies[name],
            'steps': (args.rounds + 1) * args.steps + 1,
            'accuracy_is_within_noise': abs(accuracies[name] - accuracies[BASE]) < 0.03,
        }


def environment(pythons):
    """Returns hardware and versions."""
    import jax

    from configs import cnn
    from neptune_jax import parallel, runs

    found = runs.environment(parallel.create(cnn.get_config().parallel), {})
    del found['command']  # it has paths of the machine
    for name, interpreter in pythons.items():
        code = f'import {name}; print({name}.__version__)'
        version = subprocess.run([interpreter, '-c', code], capture_output=True, text=True)
        found[f'{name}_version'] = version.stdout.strip()
    cpuinfo = Path('/proc/cpuinfo')
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return found | {'jax': jax.__version__, 'amx': 'amx_bf16' in flags, 'seed': 0}


def report(path):
    """Prints the table of a file of results, as Markdown, and draws it into a PNG beside it."""
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in path.read_text().splitlines()]
    print('| network | batch | contestant | images/s | against Flax | evaluation | first step |')
    print('|---|---:|---|---:|---:|---:|---:|')
    for record in records:
        low, middle, high = record['ratio_to_flax']
        first = record['first_step_seconds']
        print(
            f'| {record["network"]} | {record["batch_size"]} | {record["contestant"]} '
            f'| {np.median(record["train_images_per_second"]):,.0f} '
            f'| {middle:.2f} ({low:.2f}-{high:.2f}) | {record["evaluation_ratio_to_flax"][1]:.2f} '
            f'| {first["cold"]:.1f} s, {first["cached"]:.1f} s |'
        )
    groups = sorted({(record['network'], record['batch_size']) for record in records})
    figure = Figure(figsize=(4 * len(groups), 3.5), layout='constrained')
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        own = [r for r in records if (r['network'], r['batch_size']) == group][::-1]
        low, middle, high = np.array([record['ratio_to_flax'] for record in own]).T
        names = [record['contestant'] for record in own]
        axes.barh(names, middle, xerr=[middle - low, high - middle], color='tab:blue', capsize=3)
        axes.axvline(1, color='black', linewidth=0.8)
        axes.set(title=f'{group[0]}, batch {group[1]}', xlabel='images/s against plain Flax')
    figure.savefig(path.with_suffix('.png'), dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, added to')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--networks', default=','.join(contestants.NETWORKS))
    parser.add_argument('--batch_sizes', default='32,128,512')
    parser.add_argument('--contestants', default=','.join(contestants.CONTESTANTS))
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=20, help='that each takes a round')
    parser.add_argument('--python', action='append', default=[], help='NAME=INTERPRETER')
    parser.add_argument('--report', action='store_true', help='only show the results there are')
    args = parser.parse_args()
    if args.report:
        report(args.out)
        return
    args.python = dict(pair.split('=', 1) for pair in args.python)
    names = args.contestants.split(',')
    sizes = [int(size) for size in args.batch_sizes.split(',')]
    for network in args.networks.split(','):
        with tempfile.TemporaryDirectory() as folder:
            params = prepare(folder, network, args.data_dir)
            with np.load(f'{folder}/data.npz') as data:
                args.train_images, args.test_images = len(data['labels']), len(data['test_labels'])
            for batch_size in sizes:
                for record in compare(network, batch_size, names, folder, args):
                    record |= {'parameters': params, 'environment': environment(args.python)}
                    with args.out.open('a') as file:
                        file.write(json.dumps(record) + '\n')
                    print(record)


if __name__ == '__main__':
    main()
