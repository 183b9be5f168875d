"""The Makefile: which Python it takes, when it makes .venv again, and what its targets run.

Shell scripts stand in for the interpreters, so nothing is installed.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = 'chmod cp echo mkdir mktemp rm touch'.split()

# Answers what make asks a Python, makes a folder like a venv of itself, and notes all other calls.
PYTHON = """#!/bin/sh
case "$1 $2" in
    '-c '*) echo {version} ;;
    '--version ') echo Python {version}.1 ;;
    '-m venv')
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg"
        printf '#!/bin/sh\\necho lint-imports >> {log}\\n' > "$3/bin/lint-imports"
        chmod +x "$3/bin/lint-imports" ;;
    *) echo "{version} $*" >> {log} ;;
esac
"""


class Machine:
    """A folder with the project's Makefile, and a PATH with nothing but what a test puts there."""

    def __init__(self, folder):
        self.project, self.bin, self.home = (folder / name for name in ('project', 'bin', 'home'))
        for each in (self.project, self.bin, self.home):
            each.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        shutil.copy(ROOT / 'Makefile', self.project)
        for name in ('requirements.txt', 'requirements-dev.txt', 'pyproject.toml'):
            (self.project / name).touch()
        self.log = folder / 'log'

    def add_python(self, path, version):
        """Puts a Python of a version, such as '3.12', at a path; relative: on the PATH."""
        path = self.bin / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PYTHON.format(version=version, log=self.log))
        path.chmod(0o755)

    def make(self, *args, status=0):
        """Returns what make prints."""
        env = {'PATH': str(self.bin), 'HOME': str(self.home)}
        command = (shutil.which('make'), *args)
        result = subprocess.run(
            command, cwd=self.project, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == status, result.stderr
        return result.stdout + result.stderr

    @property
    def version(self):
        """The version of the Python in .venv."""
        command = (self.project / '.venv/bin/python', '-c', '')
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    @property
    def calls(self):
        """What has been run, without the installations."""
        return [line for line in self.log.read_text().splitlines() if ' -m pip ' not in line]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ('pythons', 'expected'),
    [
        ({'python3': '3.11', 'python3.12': '3.12', 'python3.13': '3.13'}, '3.13'),
        ({'python3': '3.11', 'python3.12': '3.12'}, '3.12'),
        ({'python3': '3.14', 'python3.12': '3.12'}, '3.12'),
        ({'python3': '3.13'}, '3.13'),
        ({'python3': '3.10', 'python3.11': '3.11'}, '3.11'),
        ({'python3': '3.11', '../home/.pyenv/versions/3.12.1/bin/python': '3.12'}, '3.12'),
        ({'python3.12': '3.12', '../home/.pyenv/versions/3.13.0/bin/python': '3.13'}, '3.12'),
    ],
)
def test_the_newest_supported_python_is_taken(machine, pythons, expected):
    for path, version in pythons.items():
        machine.add_python(path, version)
    output = machine.make('train')
    assert machine.version == expected
    assert ('would train faster' in output) == (expected == '3.11')


def test_a_command_that_does_not_run_is_passed_over(machine):
    machine.add_python('python3.12', '3.12')
    (machine.bin / 'python3.13').write_text('#!/bin/sh\necho no such version >&2\nexit 127\n')
    (machine.bin / 'python3.13').chmod(0o755)
    assert 'no such version' not in machine.make('train')
    assert machine.version == '3.12'


def test_no_supported_python_is_an_error(machine):
    machine.add_python('python3', '3.10')
    assert 'error: python3 is no Python 3.11, 3.12 or 3.13' in machine.make('train', status=2)


def test_another_python_makes_the_environment_again(machine):
    machine.add_python('python3', '3.11')
    machine.add_python('python3.12', '3.12')
    machine.make('train', 'PYTHON=python3')
    assert machine.version == '3.11'
    machine.make('train')
    assert machine.version == '3.11'
    assert 'Installing' not in machine.make('train', 'PYTHON=python3')
    assert 'Installing' in machine.make('train', 'PYTHON=python3.12')
    assert machine.version == '3.12'


def test_to_show_the_commands_changes_nothing(machine):
    machine.add_python('python3', '3.11')
    machine.add_python('python3.12', '3.12')
    machine.make('test', 'PYTHON=python3')
    (machine.project / '.venv/mine').touch()
    assert 'pytest' in machine.make('--dry-run', 'test', 'PYTHON=python3.12')
    assert machine.version == '3.11'
    assert (machine.project / '.venv/mine').exists()


def test_a_python_that_is_not_supported_costs_no_environment(machine):
    machine.add_python('python3', '3.11')
    machine.make('train')
    machine.add_python('python3.10', '3.10')
    for wrong in ('python3.10', './nothing'):
        output = machine.make('train', f'PYTHON={wrong}', status=2)
        assert f'error: {wrong} is no Python 3.11, 3.12 or 3.13' in output
        assert machine.version == '3.11'


def test_the_code_is_linted_before_it_is_tested(machine):
    machine.add_python('python3.12', '3.12')
    output = machine.make('test', 'ARGS=tests/models -x')
    expected = [
        '3.12 -m ruff check',
        '3.12 -m ruff format --check',
        'lint-imports',
        '3.12 -m mypy',
        '3.12 -m pytest --numprocesses=3 --dist=worksteal tests/models -x',
    ]
    assert machine.calls == expected
    assert all(line.replace('3.12', '.venv/bin/python') in output for line in expected)
    machine.make('test')
    installations = [line for line in machine.log.read_text().splitlines() if ' -m pip ' in line]
    assert len(installations) == 2  # requirements.txt and requirements-dev.txt, once


@pytest.mark.parametrize(
    ('target', 'module'),
    [
        ('multihost', 'tests.stress.processes'),
        ('stress', 'tests.stress.kills'),
        ('stress', 'tests.stress.requests'),
        ('stress', 'tests.stress.sweeps'),
        ('stress', 'tests.stress.tracking'),
        ('bench', 'experiments.benchmarks.training'),
    ],
)
def test_what_a_target_runs_is_there(machine, target, module):
    (machine.project / 'requirements-bench.txt').touch()
    machine.add_python('python3.12', '3.12')
    machine.make(target)
    assert any(line.startswith(f'3.12 -m {module}') for line in machine.calls)
    assert (ROOT / f'{module.replace(".", "/")}.py').is_file()
