"""How fast `python -m neptune_jax.serve` answers, beside LitServe and a handler without batching.

    python -m experiments.benchmarks.serving --litserve=PYTHON

All servers run `cnn` on this machine. In alternation, a client in a process of its own asks one of
them, for some seconds, over 1, 8 and 64 connections that stay open; the others are stopped
meanwhile. PYTHON is an interpreter with LitServe and this package installed.
"""

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from neptune_jax.runs import environment

RESULTS = Path(__file__).parent / 'results/serving.jsonl'
SERVERS = 'experiments.benchmarks.servers'
OURS, ALONE, PLAIN, LITSERVE = 'ours', 'ours without batching', 'starlette', 'litserve'
CONNECTIONS = (1, 8, 64)
VERSIONS = ('jax', 'starlette', 'uvicorn', 'httptools', 'uvloop', 'pillow')


def commands(run: str, litserve: str) -> dict[str, list[str]]:
    """Returns the command of each server. Its port is added to the last argument."""
    serve = [sys.executable, '-m', 'neptune_jax.serve', run]
    return {
        OURS: [*serve, '--port='],
        ALONE: [*serve, '--batch_size=1', '--port='],
        PLAIN: [sys.executable, '-m', f'{SERVERS}.plain_starlette', run, ''],
        LITSERVE: [litserve, '-m', f'{SERVERS}.litserve_server', run, ''],
    }


class Server:
    """A server in processes of its own, which are stopped except while it is asked."""

    def __init__(self, name, command, folder):
        self.options = ['--json'] if name == LITSERVE else []
        self.folder = folder
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        command = [*command[:-1], f'{command[-1]}{self.port}']
        self.process = subprocess.Popen(command, process_group=0)
        content = next(folder.iterdir()).read_bytes()
        if name == LITSERVE:
            content = json.dumps({'image': base64.b64encode(content).decode()}).encode()
        kind = {'Content-Type': 'application/json'} if name == LITSERVE else {}
        request = urllib.request.Request(f'http://localhost:{self.port}/predict', content, kind)
        while not self._answers(request):
            if self.process.poll() is not None:
                raise RuntimeError('the server has ended; its output is above')
            time.sleep(0.2)
        self.signal(signal.SIGSTOP)

    def _answers(self, request):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=5).close()
            return True
        return False

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def ask(self, connections, seconds):
        """Returns images a second, and the median and 99th percentile in milliseconds."""
        command = [sys.executable, '-m', f'{SERVERS}.load', str(self.port), str(self.folder)]
        command += [f'--connections={connections}', f'--seconds={seconds}', *self.options]
        self.signal(signal.SIGCONT)
        loaded = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        self.signal(signal.SIGSTOP)
        answer = json.loads(loaded.stdout)
        median, late = np.percentile(answer['milliseconds'], [50, 99])
        return len(answer['milliseconds']) / answer['seconds'], median, late


def measure(litserve: str, rounds: int, seconds: float):
    """Yields a record for each server and each number of connections."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        images = prepare(Path(folder))
        servers = {}
        for name, command in commands(f'{folder}/run', litserve).items():
            servers[name] = Server(name, command, images)
            stack.callback(servers[name].signal, signal.SIGKILL)
        found = {(name, number): [] for name in servers for number in CONNECTIONS}
        for number in range(rounds + 1):
            for connections in CONNECTIONS:
                for name, server in servers.items():
                    answer = server.ask(connections, seconds)
                    if number:  # the first round warms up
                        found[name, connections].append(answer)
    ask = [litserve, '-c', "from importlib import metadata; print(metadata.version('litserve'))"]
    version = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    versions = {name: metadata.version(name) for name in VERSIONS} | {'litserve': version}
    for (name, connections), answers in found.items():
        rates, medians, late = np.transpose(answers)
        yield {
            'benchmark': 'serving',
            'server': name,
            'connections': connections,
            'images_per_second': np.round(rates, 1).tolist(),
            'median_ms': np.round(medians, 3).tolist(),
            'percentile_99_ms': np.round(late, 3).tolist(),
            'seconds_a_round': seconds,
            'versions': versions,
            **environment.machine(),
        }


def prepare(folder):
    """Trains a run for two steps, which is as fast as any other; returns a folder of images."""
    from configs import cnn
    from neptune_jax.data import dataset
    from neptune_jax.training import loop

    config = cnn.get_config()
    config.data.name, config.data.dir = 'fashion_mnist_mini', f'{folder}/data'
    config.train.steps = 2
    loop.train_and_evaluate(config, folder / 'run')
    data = dataset.load(config.data)
    images = folder / 'images'
    images.mkdir()
    for number, image in enumerate(data.read_images(data.splits['test'])):
        Image.fromarray(image[..., 0]).save(images / f'{number:03}.png')
    return images


def read(path=RESULTS):
    """Returns the records of the results, by server and number of connections."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {(each['server'], each['connections']): each for each in records}


def table(path=RESULTS):
    """Returns a Markdown table of the results: medians over rounds."""
    names = {
        OURS: '`serve`',
        ALONE: '`serve --batch_size=1`',
        PLAIN: 'a plain Starlette handler',
        LITSERVE: 'LitServe',
    }
    records = read(path)
    lines = [
        '| connections | server | images/s | median | 99th percentile |',
        '|---:|---|---:|---:|---:|',
    ]
    for connections in CONNECTIONS:
        for name, shown in names.items():
            record = records[name, connections]
            rate, median, late = (
                statistics.median(record[key])
                for key in ('images_per_second', 'median_ms', 'percentile_99_ms')
            )
            lines.append(
                f'| {connections} | {shown} | {rate:,.0f} | {median:.1f} ms | {late:.1f} ms |'
            )
    return '\n'.join(lines)


def ratio(connections, name, path=RESULTS):
    """Returns how many times as many images ours answers as another server: median over rounds."""
    records = read(path)
    ours, theirs = (records[each, connections]['images_per_second'] for each in (OURS, name))
    return statistics.median(np.divide(ours, theirs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, written anew')
    parser.add_argument('--litserve', help='an interpreter with LitServe')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--seconds', type=float, default=3, help='that a round takes')
    parser.add_argument('--report', action='store_true', help='show the results that there are')
    args = parser.parse_args()
    if not args.report:
        records = list(measure(args.litserve, args.rounds, args.seconds))
        args.out.write_text(''.join(json.dumps(record) + '\n' for record in records))
    print(table(args.out))


if __name__ == '__main__':
    main()
