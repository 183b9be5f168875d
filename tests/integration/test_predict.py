"""`python -m neptune_jax.predict`, started as a user starts it, and killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neptune_jax.testing import xla

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(finished_run):
    """Starts the command with the finished run, its standard streams as text."""

    def start(*args, run_dir=finished_run):
        return subprocess.Popen(
            [sys.executable, '-m', 'neptune_jax.predict', str(run_dir), *map(str, args)],
            env=os.environ | {'XLA_FLAGS': xla.flags(1)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def folder(tmp_path):
    """A folder of 40 images of black on white, and one that is none."""
    random = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for number in range(40):
        pixels = random.integers(150, 256, (20, 28)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'images/{number:02}.png')
    (tmp_path / 'images/07.png').write_text('no image')
    return tmp_path / 'images'


def test_rows_on_the_screen_and_in_files_are_the_same(start, folder, tmp_path):
    process = start('-', '--format=json', '--top=2')
    output, lines = process.communicate(f'{folder}\n', timeout=120)
    assert process.returncode == 1
    assert '1 of 40 files cannot be read' in lines
    assert lines.count('do not look like those of the training: mean grey 0.') == 1
    assert lines.count('in the training 1.00 to 1.00') == 1
    printed = [json.loads(line) for line in output.splitlines()]

    out, pictures = tmp_path / 'rows.csv', tmp_path / 'pictures'
    three = [folder / '06.png', folder / '07.png', folder / '08.png']
    process = start(*three, '--top=2', f'--out={out}', f'--explain={pictures}', '--batch_size=64')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f'wrote 3 rows to {out}' in output
    assert len(list(pictures.iterdir())) == 2
    rows = csv.DictReader(out.read_text().splitlines())
    for row, expected in zip(rows, printed[6:9], strict=True):
        assert row['file'] == expected['file']
        assert row['error'] == expected.get('error', '')
        top = [(row[f'class_{i}'], row[f'probability_{i}']) for i in (1, 2)]
        expected_top = [tuple(map(str, each.values())) for each in expected.get('top', [])]
        assert top == (expected_top or [('', '')] * 2)


def test_mistakes_are_one_line_and_nothing_is_written(start, folder, tmp_path):
    out = tmp_path / 'rows.csv'
    for args, message in {
        (folder, '--out=rows.txt'): '--out=rows.txt must end with .csv or .jsonl',
        (folder, '--resume'): '--resume needs --out',
        (folder, f'--out={out}', '--format=csv'): 'leave --format out',
        (): 'give a run directory and images',
    }.items():
        process = start(*args)
        _, lines = process.communicate(timeout=120)
        assert process.returncode == 2
        assert message in lines
        assert lines.count('\n') == 1
    process = start(folder, f'--out={out}', run_dir=tmp_path)
    _, lines = process.communicate(timeout=120)
    assert process.returncode == 2
    assert 'holds no run' in lines
    assert not out.exists()


def test_killed_it_leaves_no_process_and_goes_on_to_the_same_bytes(start, folder, tmp_path):
    names = '\n'.join([f'{folder}/{number:02}.png' for number in range(40)] * 60)

    def predict(name):
        process = start('-', f'--out={tmp_path / name}', '--resume', '--workers=2')
        process.stdin.write(names)
        process.stdin.close()
        process.stdin = None
        return process

    process = predict('killed.csv')
    while not (tmp_path / 'killed.csv').exists() or not (tmp_path / 'killed.csv').stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # returns when its children, too, have closed the pipes
    for name in ('killed.csv', 'whole.csv'):
        process = predict(name)
        process.communicate(timeout=120)
        assert process.returncode == 1
    assert (tmp_path / 'killed.csv').read_bytes() == (tmp_path / 'whole.csv').read_bytes()
    assert (tmp_path / 'whole.csv').read_bytes().count(b'\n') == 2401
    assert len(children) >= 2
    assert not any(Path(f'/proc/{child}').exists() for child in children)


def test_a_reader_that_has_enough_ends_it(start, folder):
    process = start(*[folder] * 500, '--format=csv')
    assert process.stdout.readline().startswith('file,error,class_1')
    process.stdout.close()
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    assert 'Traceback' not in process.stderr.read()
    process.stdin.close()
    process.stderr.close()
