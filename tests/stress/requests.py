"""Sends bad requests to `python -m neptune_jax.serve`: damaged images, bombs, slow and odd HTTP.

    python -m tests.stress.requests --requests=10000 --out=tests/stress/results.jsonl

A request ends well if it gets an answer with a status that blames the client, 503 or 504, and a
reason in JSON; or none where it has broken its connection itself. An image that is whole must get
its probabilities, also in between. The server must live, and need no more memory at the end than
after an image of the largest size and a fifth of the requests.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.stress import request_cases

BODY_SECONDS = 0.5  # in which a request must arrive
GROWTH = 48 * 2**20  # bytes of memory that four fifths of the requests may add


class Outcome(NamedTuple):
    """What came back."""

    status: int  # 0: nothing
    body: bytes


# ------------------------------------------------------------------------------------- outcomes
def send(port, case):
    """Sends a case; returns its Outcome."""
    answer = b''
    with socket.create_connection(('127.0.0.1', port), 60) as connection:
        with contextlib.suppress(ConnectionError):
            for part in case.parts:
                connection.sendall(part)
                time.sleep(case.pause)
        if not case.reads:
            return Outcome(0, b'')
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
    answer = answer.removeprefix(b'HTTP/1.1 100 Continue\r\n\r\n')
    head, _, body = answer.partition(b'\r\n\r\n')
    return Outcome(int(head.split(b' ')[1]) if head else 0, body)


def fault(case, outcome):
    """Returns what is wrong with an outcome; '' if it is a good one."""
    status, body = outcome
    if case.kind == 'whole' and status != 200:
        return f'status {status} for a whole image: {body[:200]!r}'
    if status >= 500 and status not in (503, 504):
        return f'status {status}'
    if not status:
        # A connection that is closed while the client still sends loses the answer.
        breaks_off = case.kind in ('left', 'no http', 'headers', 'slow', 'path', 'wrong length')
        return '' if breaks_off or case.kind == 'chunked' else 'no answer'
    if status >= 400 and case.parts[0][:4] != b'HEAD':
        try:
            content = json.loads(body)
        except ValueError:
            return f'no JSON: {body[:200]!r}'
        if content.keys() != {'error'} or not content['error']:
            return 'no reason'
    return ''


def send_all(port, numbers, seed, threads=16):
    """Sends cases; returns how many had each status, and the faults with their numbers."""

    def one(number):
        case = request_cases.draw(seed, number)
        return case, send(port, case), number

    statuses, faults = collections.Counter(), []
    with ThreadPoolExecutor(threads) as pool:
        for case, outcome, number in pool.map(one, numbers):
            statuses[outcome.status] += 1
            if wrong := fault(case, outcome):
                faults.append(f'{number}, {case.kind}: {wrong}')
    return statuses, faults


# --------------------------------------------------------------------------------------- server
@contextlib.contextmanager
def serve(run):
    """Starts the command; yields its process and its port."""
    command = [sys.executable, '-m', 'neptune_jax.serve', run, '--port=0', '--batch_size=16']
    command += [f'--body_timeout={BODY_SECONDS}']
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {'PYTHONUNBUFFERED': '1'}
    ) as process:
        port = None
        for line in process.stdout:
            if found := re.match(r'listening on http://\S+:(\d+)/', line):
                port = int(found[1])
            if line.startswith('ready'):
                break
        try:
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)


def resident(process):
    """Returns the bytes of memory that a process has."""
    pages = Path(f'/proc/{process.pid}/statm').read_text().split()[1]
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--requests', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='a file of JSON lines to add the result to')
    args = parser.parse_args()

    from configs import cnn
    from neptune_jax.training import loop
    from tests.stress import recording

    statuses, faults, memory = collections.Counter(), [], []
    with tempfile.TemporaryDirectory() as folder:
        config = cnn.get_config()
        config.data.name, config.data.dir = 'fashion_mnist_mini', f'{folder}/data'
        config.train.steps = 2
        loop.train_and_evaluate(config, Path(folder, 'run'))
        good = request_cases.whole(random.Random(0))
        with serve(f'{folder}/run') as (process, port):
            send(port, request_cases.largest())
            first = send(port, good)
            for part in np.array_split(np.arange(args.requests), 5):
                more, wrong = send_all(port, part.tolist(), args.seed)
                statuses += more
                faults += wrong
                memory.append(resident(process))
                print(f'{sum(statuses.values()):,} requests, {memory[-1] / 2**20:.0f} MiB')
            if send(port, good) != first:
                faults.append('the same image gets another answer at the end')
            if process.poll() is not None:
                faults.append(f'the server has ended with status {process.returncode}')
        if process.returncode:
            faults.append(f'the server ends with status {process.returncode}')
    if memory[-1] - memory[0] > GROWTH:
        faults.append(f'memory grows from {memory[0]:,} to {memory[-1]:,} bytes')
    print(*faults, sep='\n')
    result = {'bad_requests': args.requests, 'faults': len(faults), 'seed': args.seed}
    result['statuses'] = {str(status): statuses[status] for status in sorted(statuses)}
    result['mebibytes'] = [round(each / 2**20) for each in memory]
    recording.record(result, args.out)
    sys.exit(bool(faults))


if __name__ == '__main__':
    main()
