"""Runs to send, and the command that sends them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neptune_jax.runs import files, writer
from tests.tracking import programs

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
    """Starts `python -m neptune_jax.sync` as a fork; returns the programs.Program."""
    started = []

    def start_sync(token, *arguments, **variables):
        started.append(programs.start_sync(tmp_path, arguments, environment(token, **variables)))
        return started[-1]

    yield start_sync
    for program in started:
        program.kill()


@pytest.fixture
def sync(start_sync):
    """Runs `python -m neptune_jax.sync` as a fork; returns its status, stdout and stderr."""

    def sync(token, *arguments, **variables):
        return start_sync(token, *arguments, **variables).wait(120)

    return sync


@pytest.fixture
def sync_command(environment, tmp_path):
    """Runs `python -m neptune_jax.sync` as a user does; returns its status, stdout and stderr."""

    def sync_command(token, *arguments, **variables):
        command = [sys.executable, '-m', 'neptune_jax.sync', *map(str, arguments)]
        env = environment(token, PYTHONPATH=str(ROOT), **variables)
        options = {'capture_output': True, 'text': True, 'timeout': 120, 'check': False}
        done = subprocess.run(command, cwd=tmp_path, env=env, **options)
        return done.returncode, done.stdout, done.stderr

    return sync_command
