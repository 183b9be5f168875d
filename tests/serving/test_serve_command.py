"""`python -m neptune_jax.serve`, started as a user starts it."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from neptune_jax.errors import UserError
from neptune_jax.serving import models, server
from neptune_jax.testing import xla
from tests.serving.running import encode


@contextlib.contextmanager
def command(*flags):
    """Starts the command with a free port; yields the process and its port."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'neptune_jax.serve', *map(str, flags), '--port=0'],
        env=os.environ | {'XLA_FLAGS': xla.flags(1), 'PYTHONUNBUFFERED': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = None
        for line in process.stdout:
            if found := re.match(r'listening on http://127\.0\.0\.1:(\d+)/', line):
                port = int(found[1])
            if line.startswith('ready'):
                break
        yield process, port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def ask(port, path, body=None):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    with contextlib.closing(connection):
        connection.request('POST' if body else 'GET', path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_it_answers_and_ends_with_what_was_asked_answered(finished_run, predictor, pictures):
    with command(finished_run, '--batch_size=4') as (process, port):
        status, answer = ask(port, '/predict?top=1', encode(pictures[0]))
        assert status == 200
        assert answer['model'] == finished_run.name
        best = predictor(pictures[:1]).max()
        np.testing.assert_allclose(answer['top'][0]['probability'], best, rtol=1e-5)
        # Half of a request has come at the signal, the rest comes after it.
        body = encode(pictures[0])
        head = b'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n'
        with (
            socket.create_connection(('127.0.0.1', port), 30) as begun,
            socket.create_connection(('127.0.0.1', port), 30) as idle,
            socket.create_connection(('127.0.0.1', port), 30) as never_ends,
        ):
            begun.sendall(head % len(body) + body[:100])
            never_ends.sendall(head % len(body) + body[:100])
            time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(('127.0.0.1', port), 1)
            begun.sendall(body[100:])
            assert begun.recv(65536).startswith(b'HTTP/1.1 200 OK')
            assert idle.recv(1) == b''
            assert never_ends.recv(65536).startswith(b'HTTP/1.1 503 ')
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
        assert process.stderr.read() == ''


def test_a_signal_while_it_loads_ends_it_too(finished_run):
    process = subprocess.Popen(
        [sys.executable, '-m', 'neptune_jax.serve', finished_run, '--port=0'],
        env=os.environ | {'XLA_FLAGS': xla.flags(1), 'PYTHONUNBUFFERED': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith('run: ')
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, '')


def test_mistakes_are_one_line(tmp_path):
    env = os.environ | {'XLA_FLAGS': xla.flags(1)}
    run = [sys.executable, '-m', 'neptune_jax.serve', tmp_path]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ''
    assert re.fullmatch(r'error: .* holds no run: there is no config\.json\n', done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_other_machines_need_a_token(tmp_path):
    assert server.access('127.0.0.1', None, False).token is None
    assert 'localhost' in server.access('localhost', None, False).hosts
    with pytest.raises(UserError, match=r'other machines reach --host=0\.0\.0\.0: give --token'):
        server.access('0.0.0.0', None, False)
    assert server.access('0.0.0.0', None, True) == (None, None)
    token = tmp_path / 'token'
    token.write_text('0123456789abcdef\n')
    assert server.access('192.0.2.1', str(token), False) == (None, b'0123456789abcdef')
    assert server.access('127.0.0.1', str(token), False).token == b'0123456789abcdef'
    with pytest.raises(UserError, match='not both'):
        server.access('0.0.0.0', str(token), True)
    with pytest.raises(UserError, match='cannot be read: No such file'):
        server.access('0.0.0.0', str(tmp_path / 'nothing'), False)
    for wrong in ('', 'short', 'two words of many', 'é' * 20):
        token.write_text(wrong)
        with pytest.raises(UserError, match='must hold one word of 16 characters or more'):
            server.access('0.0.0.0', str(token), False)


def test_an_address_that_cannot_be_used_is_named():
    with server.listen('127.0.0.1', 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f'--host=127.0.0.1 --port={port}: Address already'):
            server.listen('127.0.0.1', port)
    with pytest.raises(UserError, match=r'cannot listen on --host=192\.0\.2\.1 --port=80: '):
        server.listen('192.0.2.1', 80)  # of no machine


def test_models_have_the_names_of_their_folders():
    assert models.names(['runs/cnn', 'b/cnn/', 'cnn-2', 'c/cnn']) == [
        'cnn',
        'cnn-2',
        'cnn-2-2',
        'cnn-3',
    ]


def test_the_help_has_two_examples():
    done = subprocess.run(
        [sys.executable, '-m', 'neptune_jax.serve', '--help'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count('python -m neptune_jax.serve ') == 2
    assert '--batch_size=VALUE' in done.stdout
