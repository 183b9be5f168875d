"""Kills a sweep at random times, starts it again, and compares all its runs.

    python -m tests.stress.sweeps --kills=30 --out=tests/stress/results.jsonl

Two process groups play two machines: each runs the same sweep of 12 short trials in the same
folder, with two workers. At random times SIGKILL hits one of them, one of their trainings, or
everything. What is dead is started again. Afterwards one more call must finish what is missing, and
every run must equal the one of a sweep that was left alone: the parameters of its last checkpoint,
its rows (less their times), its results. No training may have met another one in its directory.
"""

import argparse
import collections
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from neptune_jax.runs import reader
from neptune_jax.testing import xla
from tests.stress import kills, recording

STEPS = 60
FLAGS = kills.FLAGS | {'train.steps': STEPS}
GRID = ('optim.name=sgd,adam', 'seed=0:6')
MACHINES = 2
PAUSE = (1.0, 8.0)  # seconds between two kills


def command(out, flags, grid=GRID, workers=2):
    settings = [f'--config.{name}={value}' for name, value in flags.items()]
    sweep = [sys.executable, '-m', 'neptune_jax.sweep', '--config=configs/cnn.py', *settings]
    return [*sweep, *(f'--grid={text}' for text in grid), f'--workers={workers}', f'--out={out}']


def start(out, flags, **options):
    """Starts a sweep in a session of its own, so that all its processes can be found."""
    env = os.environ | {'XLA_FLAGS': xla.flags(1), 'JAX_PLATFORMS': 'cpu'}
    return subprocess.Popen(
        command(out, flags, **options),
        cwd=kills.ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(out, flags, **options):
    """Lets a sweep go on to its end; returns what it printed."""
    process = start(out, flags, **options)
    output, _ = process.communicate(timeout=1800)
    if process.returncode:
        raise RuntimeError(f'it needs a hand: exit status {process.returncode}\n{output}')
    return output


def session(process):
    """Returns the process IDs of all that a sweep has started, also of what outlives it."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            # The name of the program, in brackets, may hold anything.
            state, _, _, number, *_ = path.read_text().rpartition(')')[2].split()
        except OSError:  # it has just ended
            continue
        if int(number) == process.pid and state != 'Z':
            found.append(int(path.parent.name))
    return found


def trainings(process):
    """Returns the process IDs of the trainings of a sweep."""
    found = []
    for number in session(process):
        try:
            arguments = Path(f'/proc/{number}/cmdline').read_bytes().split(b'\0')
        except OSError:
            continue
        if any(argument.startswith(b'--workdir=') for argument in arguments):
            found.append(number)
    return found


def kill(machine, target):
    """Kills a sweep, one of its trainings, or both; returns whether there was something to kill."""
    numbers = {
        'sweep': [machine.pid] if machine.poll() is None else [],
        'training': trainings(machine)[:1],
        'all': session(machine),
    }[target]
    for number in numbers:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(numbers)


def wait_for_all(machines):
    """Waits until nothing of these sweeps is left: what survives a sweep ends by itself."""
    deadline = time.monotonic() + 120
    while any(map(session, machines)):
        if time.monotonic() > deadline:
            raise RuntimeError('a training has outlived its sweep by two minutes')
        time.sleep(0.1)


def ends(out, steps=STEPS):
    """How each run of a sweep has ended, by its name."""
    return {path.parent.name: kills.end(path.parent, steps) for path in out.glob('*/config.json')}


def disturb(out, flags, count, rng):
    """Kills until there have been so many kills or all has finished; returns the kills."""
    done = collections.Counter()
    machines = [start(out, flags) for _ in range(MACHINES)]
    ended = []
    while done.total() < count and any(machine.poll() is None for machine in machines):
        time.sleep(rng.uniform(*PAUSE))
        number = rng.randrange(MACHINES)
        target = rng.choice(['sweep', 'training', 'all'])
        done[target] += kill(machines[number], target)
        for i, machine in enumerate(machines):
            code = machine.poll()
            if code is not None and code != 0:
                output = machine.communicate()[0]
                if code != -signal.SIGKILL:
                    raise RuntimeError(f'a sweep ended with {code}\n{output}')
                ended.append(machine)
                machines[i] = start(out, flags)
    for machine in machines:
        done['all'] += kill(machine, 'all')
        machine.communicate()
    wait_for_all([*machines, *ended])
    return done


def stress(count, seed):
    """Kills so many times; returns a dict of what came out."""
    total = collections.Counter()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ['JAX_COMPILATION_CACHE_DIR'] = f'{folder}/compiled'
        flags = FLAGS | {'data.dir': f'{folder}/data'}
        finish(f'{folder}/alone', flags)
        expected = ends(Path(folder, 'alone'))
        while total['kills'] < count:
            out = Path(folder, str(total['sweeps']))
            done = disturb(out, flags, count - total['kills'], rng)
            unfinished = 12 - sum(
                reader.read_summary(path.parent).get('status') == 'finished'
                for path in out.glob('*/config.json')
            )
            finish(out, flags)
            found = ends(out)
            logs = [path.read_text(errors='replace') for path in out.glob('*/trial.log')]
            total.update(
                sweeps=1,
                kills=done.total(),
                runs=len(found),
                runs_finished_by_the_last_call=unfinished,
                runs_that_differ=sum(found.get(name) != expected[name] for name in expected),
                meetings=sum(len(re.findall('is being written by', log)) for log in logs),
            )
            total.update({f'kills_of_{target}': number for target, number in done.items()})
            print(dict(total), flush=True)
    return dict(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='a file of results, to which a line is added')
    args = parser.parse_args()
    result = stress(args.kills, args.seed) | {'seed': args.seed, 'jax': jax.__version__}
    recording.record({'stress': 'sweeps'} | result, args.out)


if __name__ == '__main__':
    main()
