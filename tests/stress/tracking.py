"""Kills the sender of a run at random moments, starts it again, and compares what has arrived.

    python -m tests.stress.tracking --kills=10 --out=tests/stress/results.jsonl

Between the kills the run grows. At the end it is sent twice more: the first time completely, the
second time nothing is new. The server must hold each point once, equal in step, time and value.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from neptune_jax.runs import files, writer
from neptune_jax.testing import neptune_server as server
from tests.stress import recording

ROOT = Path(__file__).parents[2]
ROWS = 2_000  # written before each kill, of five values


def start(workdir, token, *options):
    env = os.environ | {'NEPTUNE_API_TOKEN': token, 'NEPTUNE_PROJECT': 'lab/images'}
    command = [sys.executable, '-m', 'neptune_jax.sync', str(workdir), *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def expected_series(workdir):
    """Returns the points that a server should hold: (step, milliseconds, value) by key."""
    series = {}
    for line in (workdir / 'metrics.jsonl').read_text().splitlines():
        row = json.loads(line)
        for key, value in row.items():
            if key not in ('step', 'time') and not isinstance(value, str):
                point = (row['step'], round(1000 * row['time']), value)
                series.setdefault(key, []).append(point)
    return series


def kill_often(folder, kills, seed):
    """Returns how many points are missing, wrong or there twice at the end."""
    rng, steps = random.Random(seed), 0
    files.write_json(folder / 'config.json', {'seed': seed})
    run = writer.Run(folder)
    with server.serve() as tracker:
        for _ in range(kills):
            for step in range(steps + 1, steps + ROWS + 1):
                run.write(step, {f'train/{name}': i / step for i, name in enumerate('abcde')})
            steps += ROWS
            with files.locked(folder / '.lock'):
                moment = tracker.requests.total() + rng.randrange(3, 18)
                process = start(folder, tracker.token, '--follow')
                if not tracker.wait_for(lambda m=moment: tracker.requests.total() >= m, 60):
                    raise RuntimeError('the server gets no more requests')
                process.kill()
                process.communicate()
        run.close()
        for _ in range(2):
            process = start(folder, tracker.token)
            output, errors = process.communicate()
            if process.returncode:
                raise RuntimeError(errors)
        if 'sent nothing new' not in output:
            raise RuntimeError(f'something was sent a second time: {output}')
        (sent,) = tracker.runs.values()
    expected = expected_series(folder)
    points = sum(map(len, expected.values()))
    wrong = sum(
        len(set(expected[key]) ^ set(sent.series[key])) + len(sent.series[key]) - len(expected[key])
        for key in expected
    )
    return {'points': points, 'points_wrong': wrong, 'runs_on_the_server': len(tracker.runs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='a file of results, to which a line is added')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {'kills_of_sync': args.kills} | kill_often(Path(folder), args.kills, args.seed)
    result |= {'seed': args.seed, 'neptune': metadata.version('neptune')}
    recording.record(result, args.out)


if __name__ == '__main__':
    main()
