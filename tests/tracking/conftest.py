"""Runs to send, and the command that sends them, started as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neptune_jax.runs import files, writer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_run(tmp_path):
    """Makes a run directory; returns the writer.Run that goes on to write it."""
    made = []

    def make_run(name='run', config=None, environment=None):
        workdir = tmp_path / name
        (workdir / 'artifacts').mkdir(parents=True)
        files.write_json(workdir / 'config.json', {'seed': 0} | (config or {}))
        files.write_json(workdir / 'environment.json', environment or {'python': '3.12.1'})
        run = writer.Run(workdir)
        made.append(run)
        run.update_summary(status='running')
        return run

    yield make_run
    for run in made:
        run.close()


@pytest.fixture
def environment():
    """The environment of a process that may send runs to a server."""

    def environment(token=None, **variables):
        variables = {'NEPTUNE_PROJECT': 'lab/images', 'COLUMNS': '200'} | variables
        return os.environ | ({'NEPTUNE_API_TOKEN': token} if token else {}) | variables

    return environment


@pytest.fixture
def start_sync(environment, tmp_path):
    """Starts `python -m neptune_jax.sync`; returns the Popen."""
    processes = []

    def start_sync(token, *arguments, **variables):
        command = [sys.executable, '-m', 'neptune_jax.sync', *map(str, arguments)]
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        env = environment(token, PYTHONPATH=str(ROOT), **variables)
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=env, **pipes))
        return processes[-1]

    yield start_sync
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def sync(start_sync):
    """Runs `python -m neptune_jax.sync` to its end; returns status, stdout and stderr."""

    def sync(token, *arguments, **variables):
        process = start_sync(token, *arguments, **variables)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    return sync
