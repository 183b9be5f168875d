"""Kills trainings at random times, starts them again, and compares how they end.

    python -m tests.stress.kills --kills=200 --out=tests/stress/results.jsonl

Each training is killed up to five times, by SIGKILL, SIGTERM or SIGINT, at times drawn by the seed
from its start to its expected end; so in imports, compilation, steps, evaluations, writes of
checkpoints and the final test. Then it is left to finish. Nothing may tell it from a training that
was left alone: the parameters of its last checkpoint, its rows (less their times), its results.
Dropout, augmentation, mixup, batch normalisation, averaged parameters and a schedule are on.

Every third training compiles its programs itself, and optimises them, at each start. That takes
seconds, and half of its kills come while it compiles. The others find their programs on the disk.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from neptune_jax.errors import PREEMPTED_STATUS
from neptune_jax.exits import CTRL_C_STATUS
from neptune_jax.runs import reader
from neptune_jax.testing import xla
from tests.stress import recording

ROOT = Path(__file__).parents[2]
STEPS = 240
FLAGS = {
    'data.name': 'fashion_mnist_mini',
    'model.features': '4,8',
    'model.hidden': '16',
    'model.norm': 'batch',
    'model.dropout': 0.2,
    'augment.flip': 'random',
    'augment.crop_padding': 2,
    'augment.mixup': 0.4,
    'loss.label_smoothing': 0.1,
    'optim.ema_decay': 0.9,
    'optim.warmup': '20 steps',
    'optim.clip_norm': 1.0,
    'train.steps': STEPS,
    'train.batch_size': 32,
    'log.every': '10 steps',
    'eval.every': '30 steps',
    'checkpoint.every': '13 steps',  # not in step with the rows
}
MOST_KILLS = 5  # of one training

# What a signal may end a training with: the statuses of Popen. A training cannot listen at once.
STATUSES = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {PREEMPTED_STATUS, -signal.SIGTERM},
    signal.SIGINT: {PREEMPTED_STATUS, CTRL_C_STATUS},
}
LAST_LINE_BEFORE_COMPILATION = ' model cnn'
COMPILATION_SECONDS = 4.0  # or less; then some of these signals come in the first steps


def command(workdir, flags):
    settings = [f'--config.{name}={value}' for name, value in (FLAGS | flags).items()]
    main = [sys.executable, '-m', 'neptune_jax.main', '--config=configs/cnn.py']
    return [*main, *settings, f'--workdir={workdir}']


def start(workdir, flags, compiles=False):
    """Starts a training; one that `compiles` optimises all programs anew, which takes seconds."""
    env = os.environ | {'XLA_FLAGS': xla.flags(1, optimized=compiles), 'JAX_PLATFORMS': 'cpu'}
    if compiles:
        env |= {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    return subprocess.Popen(
        command(workdir, flags),
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workdir, flags, compiles=False):
    """Lets a training go on to its end; returns what it printed."""
    process = start(workdir, flags, compiles)
    output, _ = process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f'it needs a hand: exit status {process.returncode}\n{output}')
    return output


def end(workdir, steps=STEPS):
    """All of a finished training that must not depend on how it got there."""
    rows = [{key: row[key] for key in row if key != 'time'} for row in reader.read_rows(workdir)]
    summary = reader.read_summary(workdir)
    results = {key: summary[key] for key in ('status', 'step', 'params', 'best', 'val', 'test')}
    with ocp.StandardCheckpointer() as checkpointer:  # with nothing of ours
        state = checkpointer.restore(Path(workdir).absolute() / f'checkpoints/{steps}/state')
    arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
    return {'rows': rows, 'results': results, 'state': arrays}


def interrupt(workdir, flags, rng, seconds, compiles=False):
    """Starts a training, kills it some times, lets it finish; returns the kills, one dict each."""
    kills = []
    for _ in range(rng.randint(1, MOST_KILLS)):
        process = start(workdir, flags, compiles)
        number = rng.choice(list(STATUSES))
        output = ''
        if compiles and rng.random() < 0.5:
            output = read_until(process, LAST_LINE_BEFORE_COMPILATION)
            delay = rng.uniform(0, COMPILATION_SECONDS)
        else:
            # A Ctrl-C that comes while Python itself starts is beyond the reach of this package.
            delay = rng.uniform(1 if number == signal.SIGINT else 0, seconds)
        timer = threading.Timer(delay, process.send_signal, [number])
        timer.start()
        output += process.communicate(timeout=600)[0]
        timer.cancel()
        if process.returncode == 0:
            break
        if process.returncode not in STATUSES[number] or 'Traceback' in output:
            raise RuntimeError(f'{number!r} after {delay} s: {process.returncode}\n{output}')
        lines = [
            line for line in output.splitlines() if line[:1].isalpha() and 'ended by' not in line
        ]
        kills.append(
            {
                'signal': number.name,
                'seconds': round(delay, 2),
                'status': process.returncode,
                'after': lines[-1][:30] if lines else '',
                'compiles': compiles,
            }
        )
    finish(workdir, flags, compiles)
    return kills


def read_until(process, text):
    """Returns what a training prints up to a line with some text, or to its end."""
    output = ''
    for line in process.stdout:
        output += line
        if text in line:
            break
    return output


def stress(kills, seed, jobs=1):
    """Interrupts trainings until there have been so many kills; returns a dict of what came out."""
    total = collections.Counter(needed_a_hand=0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ['JAX_COMPILATION_CACHE_DIR'] = f'{folder}/compiled'
        flags, seconds, expected = {'data.dir': f'{folder}/data'}, {}, {}
        finish(f'{folder}/warm_up', flags)  # prepares the data, too
        for compiles in (False, True):  # XLA's optimisations change the last bits
            began = time.perf_counter()
            finish(f'{folder}/{compiles}', flags, compiles)
            seconds[compiles] = (time.perf_counter() - began) * (1 + 0.5 * (jobs > 1))
            expected[compiles] = end(f'{folder}/{compiles}')

        def one(number):
            if total['kills'] >= kills:
                return
            workdir = f'{folder}/{number}'
            compiles = number % 3 == 0
            rng = random.Random(f'{seed} {number}')
            try:
                found = interrupt(workdir, flags, rng, seconds[compiles], compiles)
            except RuntimeError as error:
                total.update(runs=1, needed_a_hand=1)
                print(f'{number}: {error}', flush=True)
                return
            alone = expected[compiles]
            differ = [key for key, value in end(workdir).items() if value != alone[key]]
            steps = [row['step'] for row in alone['rows'] if 'train/loss' in row]
            rows = [row['step'] for row in reader.read_rows(workdir) if 'train/loss' in row]
            total.update(
                runs=1,
                kills=len(found),
                runs_that_differ=bool(differ),
                rows_lost=len(set(steps) - set(rows)),
                rows_twice=len(rows) - len(set(rows)),
                kills_of_runs_that_compile=len(found) * compiles,
            )
            total.update(kill['signal'] for kill in found)
            print(f'{number}: {json.dumps(found)}, differs in {differ}', flush=True)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(one, range(10 * kills)))
    return dict(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time')
    parser.add_argument('--out', help='a file of results, to which a line is added')
    args = parser.parse_args()
    # A shell lets what it starts in the background ignore Ctrl-C, which some of the kills are.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    result = stress(args.kills, args.seed, args.jobs)
    result |= {'seed': args.seed, 'steps': STEPS, 'jax': jax.__version__}
    recording.record(result, args.out)


if __name__ == '__main__':
    main()
