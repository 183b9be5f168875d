"""How fast the same network is trained here and in what people would use instead.

    python -m experiments.benchmarks.training
    python -m experiments.benchmarks.training --networks=cnn3 --batch_sizes=128 --rounds=7
    python -m experiments.benchmarks.training --networks=cnn3 --batch_sizes=128 --until=0.9
    python -m experiments.benchmarks.training --report

Each contestant (contestants/) is a process that starts from the same parameters and takes the same
batches of Fashion-MNIST. They take turns: in a round each takes some steps without augmentation and
as many with it. A ratio compares two contestants in the same round. With `--until` they take turns
until each has reached that test accuracy. `--python=torch=PATH` names another interpreter for the
contestants whose names begin with `torch`; requirements-bench.txt lists what they need.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import contestants
from neptune_jax.runs import environment

HERE = Path(__file__).parent
RESULTS = HERE / 'results/training.jsonl'
BASE, OURS = 'flax', 'ours'
DETAILED = 128  # batch size of the table that shows all measurements
TEST_IMAGES = 2000  # classified in a round


class Process:
    """A contestant's process, waiting for commands.

    Attributes:
        initial_loss: on the first images, with the initial parameters.
        seconds_to_first_step: from the start of the process to the end of its first step.
    """

    def __init__(
        self, name: str, network: str, batch_size: int, folder: str, pythons: dict[str, str]
    ):
        interpreter = next(
            (pythons[key] for key in pythons if name.startswith(key)), sys.executable
        )
        environ = os.environ | {
            'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache/{name.replace(" ", "_")}',
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
            'KERAS_BACKEND': 'jax',
            'TORCHINDUCTOR_CACHE_DIR': f'{folder}/cache/{name.replace(" ", "_")}',
            'PYTHONPATH': str(HERE.parents[1]),
        }
        command = [interpreter, '-m', contestants.__name__, name, network, str(batch_size), folder]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        self.initial_loss = self._answer()['initial_loss']
        self.seconds_to_first_step = time.perf_counter() - began

    def ask(self, *command: Any) -> dict:
        """Sends a method of Contestant and its arguments; returns the answer."""
        self._process.stdin.write(' '.join(map(str, command)) + '\n')
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError('a contestant has ended; its output is above')
        return json.loads(line)

    def end(self) -> None:
        """Ends the process and waits until it is gone."""
        self._process.communicate()


def prepare(folder: str, network: str, data_dir: str) -> int:
    """Writes data.npz and params.npz into a folder; returns the number of parameters."""
    import jax
    from flax.traverse_util import flatten_dict

    from neptune_jax import models
    from neptune_jax.data import dataset
    from neptune_jax.learning.state import count_params

    config = importlib.import_module(f'configs.{network}').get_config()
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


def start(
    network: str, batch_size: int, names: list[str], folder: str, args: argparse.Namespace
) -> tuple[dict[str, Process], dict[str, float]]:
    """Returns the processes, and their seconds to the first step with an empty cache, by name."""
    cold, processes = {}, {}
    for name in names:
        process = Process(name, network, batch_size, folder, args.python)
        cold[name] = process.seconds_to_first_step
        process.end()
        processes[name] = Process(name, network, batch_size, folder, args.python)
    expected = processes[BASE].initial_loss
    for name, process in processes.items():
        apart = abs(process.initial_loss - expected)
        if apart > (0.02 * expected if 'bfloat16' in name else 1e-3):
            raise RuntimeError(f'{name} starts from {process.initial_loss}, {BASE} from {expected}')
    return processes, cold


def compare(
    network: str, batch_size: int, names: list[str], folder: str, args: argparse.Namespace
) -> Iterator[dict]:
    """Yields a record for each contestant, all of them measured in alternation."""
    processes, cold = start(network, batch_size, names, folder, args)
    measured = {name: {'plain': [], 'augmented': [], 'evaluation': []} for name in names}
    accuracies = {}
    for number in range(args.rounds + 1):
        for name, process in processes.items():
            seconds = {}
            for augmented, key in enumerate(('plain', 'augmented')):
                process.ask('augment', augmented)
                seconds[key] = process.ask('train', args.steps)['seconds']
            tested = process.ask('evaluate', TEST_IMAGES)
            seconds['evaluation'], accuracies[name] = tested['seconds'], tested['result']
            if number:  # the first round warms up
                images = args.steps * batch_size
                measured[name]['plain'].append(images / seconds['plain'])
                measured[name]['augmented'].append(images / seconds['augmented'])
                measured[name]['evaluation'].append(TEST_IMAGES / seconds['evaluation'])
    memory = {name: process.ask('memory')['result'] for name, process in processes.items()}
    for process in processes.values():
        process.end()
    for name in names:
        record = {
            'benchmark': 'training',
            'network': network,
            'batch_size': batch_size,
            'contestant': name,
            'steps_a_round': args.steps,
        }
        for key, rates in measured[name].items():
            ratios = np.divide(rates, measured[BASE][key])
            record[key] = {
                'images_per_second': np.round(rates, 1).tolist(),
                'ratio_to_flax': np.round(np.percentile(ratios, [25, 50, 75]), 3).tolist(),
            }
        rate = np.median(measured[name]['plain'])
        yield record | {
            'epoch_seconds': round(args.train_images / float(rate), 2),
            'first_step_seconds': {
                'cold': round(cold[name], 2),
                'cached': round(processes[name].seconds_to_first_step, 2),
            },
            'peak_memory_mib': round(memory[name]),
            'initial_loss': round(processes[name].initial_loss, 4),
            'test_accuracy': accuracies[name],
            'accuracy_is_within_noise': abs(accuracies[name] - accuracies[BASE]) < 0.03,
            'steps': 2 * (args.rounds + 1) * args.steps + 1,
        }


def race(
    network: str, batch_size: int, names: list[str], folder: str, args: argparse.Namespace
) -> Iterator[dict]:
    """Yields a record for each contestant: its seconds of training until a test accuracy."""
    processes, _ = start(network, batch_size, names, folder, args)
    seconds, steps = dict.fromkeys(names, 0.0), dict.fromkeys(names, 1)
    running = list(names)
    while running:
        for name in list(running):
            seconds[name] += processes[name].ask('train', args.steps)['seconds']
            steps[name] += args.steps
            accuracy = processes[name].ask('evaluate', args.test_images)['result']
            print(f'{name}: {accuracy:.4f} after {steps[name]} steps, {seconds[name]:.1f} s')
            if accuracy >= args.until:
                running.remove(name)
                yield {
                    'benchmark': 'time to accuracy',
                    'network': network,
                    'batch_size': batch_size,
                    'contestant': name,
                    'goal': args.until,
                    'steps_between_tests': args.steps,
                    'steps': steps[name],
                    'train_seconds': round(seconds[name], 2),
                    'test_accuracy': accuracy,
                }
    for process in processes.values():
        process.end()


def describe(pythons: dict[str, str]) -> dict:
    """Returns hardware and versions.

    Args:
        pythons: other interpreters, by the name of a library that they have.
    """
    import jax

    from configs import cnn
    from neptune_jax.devices import drivers

    found = environment.collect(drivers.create(cnn.get_config().parallel), {})
    del found['command']  # it has paths of the machine
    for name, interpreter in pythons.items():
        code = f'import {name}; print({name}.__version__)'
        version = subprocess.run([interpreter, '-c', code], capture_output=True, text=True)
        found[f'{name}_version'] = version.stdout.strip()
    cpuinfo = Path('/proc/cpuinfo')
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return found | {'jax': jax.__version__, 'amx': 'amx_bf16' in flags, 'seed': 0}


def report(path: Path) -> None:
    """Prints the tables of a file of results, as Markdown, and draws a PNG beside the file."""
    records, races = read(path)
    print(ratio_table(records), detailed_table(records), race_table(races), sep='\n\n')
    _draw(records, path.with_suffix('.png'))


def read(path=RESULTS):
    """Returns the records of a file of results: of `compare`, ordered, and of `race`."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    races = [record for record in records if record['benchmark'] == 'time to accuracy']
    records = [record for record in records if record['benchmark'] == 'training']
    networks = list(contestants.NETWORKS)
    records.sort(key=lambda record: (networks.index(record['network']), record['batch_size']))
    return records, races


def speedup(records, network, batch_size, contestant):
    """Returns how many times as fast ours is, the median over rounds; None if it was not run."""
    rates = {
        record['contestant']: np.array(record['plain']['images_per_second'])
        for record in records
        if (record['network'], record['batch_size']) == (network, batch_size)
    }
    return float(np.median(rates[OURS] / rates[contestant])) if contestant in rates else None


def ratio_table(records):
    """Returns how many times as fast ours is as each contestant, by network and batch size."""
    groups = _groups(records)
    lines = [
        f'| against | {" | ".join(f"{network}, {size}" for network, size in groups)} |',
        f'|---|{"---:|" * len(groups)}',
    ]
    for name in contestants.CONTESTANTS:
        if name != OURS:
            ratios = [speedup(records, *group, name) for group in groups]
            cells = ['not run' if ratio is None else f'{ratio:.2f}' for ratio in ratios]
            lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def detailed_table(records):
    """Returns all that was measured at one batch size."""
    columns = 'network contestant images/s against~Flax augmented evaluation first~step memory'
    lines = [
        f'| {" | ".join(columns.split()).replace("~", " ")} |',
        '|---|---|' + '---:|' * 6,
    ]
    for record in records:
        if record['batch_size'] != DETAILED:
            continue
        low, middle, high = record['plain']['ratio_to_flax']
        first = record['first_step_seconds']
        lines.append(
            f'| {record["network"]} | {record["contestant"]} '
            f'| {np.median(record["plain"]["images_per_second"]):,.0f} '
            f'| {middle:.2f} ({low:.2f}-{high:.2f}) '
            f'| {record["augmented"]["ratio_to_flax"][1]:.2f} '
            f'| {record["evaluation"]["ratio_to_flax"][1]:.2f} '
            f'| {first["cold"]:.1f} s, {first["cached"]:.1f} s '
            f'| {record["peak_memory_mib"]:,} MiB |'
        )
    return '\n'.join(lines)


def race_table(races):
    """Returns the seconds of training until a test accuracy, the fastest contestant first."""
    lines = ['| contestant | steps | s | accuracy |', '|---|---:|---:|---:|']
    for record in sorted(races, key=lambda record: record['train_seconds']):
        lines.append(
            f'| {record["contestant"]} | {record["steps"]:,} | {record["train_seconds"]:.0f} '
            f'| {record["test_accuracy"]:.4f} |'
        )
    return '\n'.join(lines)


def _groups(records):
    return list(dict.fromkeys((record['network'], record['batch_size']) for record in records))


def _draw(records, path):
    from matplotlib.figure import Figure

    groups = _groups(records)
    rows = -(-len(groups) // 3)
    figure = Figure(figsize=(13, 3.5 * rows), layout='constrained')
    for number, group in enumerate(groups, 1):
        axes = figure.add_subplot(rows, 3, number)
        own = [r for r in records if (r['network'], r['batch_size']) == group][::-1]
        low, middle, high = np.array([record['plain']['ratio_to_flax'] for record in own]).T
        names = [record['contestant'] for record in own]
        axes.barh(names, middle, xerr=[middle - low, high - middle], color='tab:blue', capsize=3)
        axes.axvline(1, color='black', linewidth=0.8)
        axes.set(title=f'{group[0]}, batch {group[1]}', xlabel='images/s against plain Flax')
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, to which it appends')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    parser.add_argument('--networks', default=','.join(contestants.NETWORKS))
    parser.add_argument('--batch_sizes', default='32,128,512')
    parser.add_argument('--contestants', default=','.join(contestants.CONTESTANTS))
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=20, help='of each contestant in a round')
    parser.add_argument('--python', action='append', default=[], help='NAME=INTERPRETER')
    parser.add_argument('--until', type=float, help='a test accuracy; instead of rounds')
    parser.add_argument('--report', action='store_true', help='show the results that there are')
    args = parser.parse_args()
    if args.report:
        report(args.out)
        return
    args.python = dict(pair.split('=', 1) for pair in args.python)
    names, measure = args.contestants.split(','), race if args.until else compare
    sizes = [int(size) for size in args.batch_sizes.split(',')]
    for network in args.networks.split(','):
        with tempfile.TemporaryDirectory() as folder:
            params = prepare(folder, network, args.data_dir)
            with np.load(f'{folder}/data.npz') as data:
                args.train_images, args.test_images = len(data['labels']), len(data['test_labels'])
            for batch_size in sizes:
                for record in measure(network, batch_size, names, folder, args):
                    record |= {'parameters': params, 'environment': describe(args.python)}
                    with args.out.open('a') as file:
                        file.write(json.dumps(record) + '\n')
                    print(record)


if __name__ == '__main__':
    main()
