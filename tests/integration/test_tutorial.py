"""The commands of docs/tutorial.md; and all ways to a prediction give the same probabilities."""

import contextlib
import csv
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from neptune_jax.testing.pictures import draw_shapes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs/tutorial.md'
CLASSES = ('circle', 'square', 'triangle')
SHORT = ['--config.train.epochs=8', '--config.eval.batch_size=16', '--config.data.dir=data']


def commands():
    """The five commands of the page, and the one that asks the server, as lists of words."""
    code = ''.join(re.findall(r'^```\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE))
    return [shlex.split(line) for line in code.splitlines() if re.match('python -m|curl', line)]


@pytest.fixture(scope='module')
def tutorial(tmp_path_factory):
    """The folder in which the commands have run, the server's port, and what each has printed."""
    folder = tmp_path_factory.mktemp('tutorial')
    draw_shapes(folder / 'photos', 60)
    (folder / 'configs').symlink_to(ROOT / 'configs')
    # As a user has it: one device, and programs that XLA optimises.
    env = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': '', 'COLUMNS': '100'}
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = str(free.getsockname()[1])

    def start(words):
        words = [word.replace('8000', port) for word in words]
        words[0] = sys.executable if words[0] == 'python' else words[0]
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        return subprocess.Popen(words, cwd=folder, env=env, **pipes)

    train, evaluate, predict, export, serve, ask = commands()
    printed = {}
    for name, words in {
        'train': train + SHORT,
        'evaluate': evaluate,
        'evaluate others': [*evaluate, '--data=image_folder:photos', '--out=given'],
        'predict': [*predict, '--batch_size=16'],
        'export': export,
    }.items():
        process = start(words)
        out, errors = process.communicate(timeout=250)
        assert process.returncode == 0, (words, out, errors)
        printed[name] = out
    with start(serve) as server:
        try:
            line = server.stdout.readline()
            while line and port not in line:
                line = server.stdout.readline()
            assert line, server.stderr.read()
            wait_until_ready(port)
            process = start(ask)
            printed['ask'], errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            yield folder, port, printed
        finally:
            server.terminate()
        assert server.wait(timeout=30) == 0


def wait_until_ready(port):
    for _ in range(600):
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(f'http://127.0.0.1:{port}/ready', timeout=10).close()
            return
        time.sleep(0.1)
    raise AssertionError('the server does not become ready')


def test_the_commands_of_the_tutorial_lead_from_a_folder_to_an_answer(tutorial):
    folder, _, printed = tutorial
    assert '180' in printed['train']
    assert 'accuracy' in printed['evaluate']
    assert printed['export'].count('agrees with the run') == 3
    with (folder / 'predictions.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 180
    right = [row['class_1'] == Path(row['file']).parent.name for row in rows]
    assert np.mean(right) > 0.8
    answer = json.loads(printed['ask'])
    assert answer['top'][0]['class'] == 'circle'


def test_all_ways_to_a_prediction_give_the_same_probabilities(tutorial):
    folder, port, _ = tutorial
    with np.load(folder / 'given/predictions.npz') as stored:
        names, evaluated = stored['name'].tolist(), stored['probabilities']
    assert len(names) == 180

    with (folder / 'predictions.csv').open(newline='') as file:
        rows = {row['file']: in_order(pairs_of(row)) for row in csv.DictReader(file)}
    predicted = np.float32([rows[f'photos/{name}'] for name in names])
    # Batches of 16 on one device, as in the evaluation.
    np.testing.assert_array_equal(predicted, evaluated)

    some = [0, 77, 150]
    paths = [str(folder / 'photos' / names[i]) for i in some]
    program = [sys.executable, folder / 'model/predict.py', *paths]
    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    exported = [in_order(json.loads(line)['probabilities']) for line in printed.splitlines()]
    np.testing.assert_allclose(exported, evaluated[some], atol=1e-5)

    served = [in_order(answer_to(port, Path(path).read_bytes())) for path in paths]
    np.testing.assert_allclose(served, evaluated[some], atol=1e-5)


def pairs_of(row):
    """Returns the probabilities in a row of predictions.csv, by class."""
    return {row[f'class_{i}']: float(row[f'probability_{i}']) for i in (1, 2, 3)}


def in_order(by_class):
    return [by_class[name] for name in CLASSES]


def answer_to(port, image):
    """Returns the probabilities that the server answers with, by class."""
    request = urllib.request.Request(f'http://127.0.0.1:{port}/predict', image)
    with urllib.request.urlopen(request, timeout=30) as response:
        return {each['class']: each['probability'] for each in json.load(response)['top']}
