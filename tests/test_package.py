"""The package as others install it: a wheel, trained with from an empty folder; its floors."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from neptune_jax.testing import xla

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']

CONFIG = """
from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config():
    config = defaults.get_config()
    config.model = ConfigDict({'name': 'cnn', 'features': (4, 8)})
    return config
"""


def run(*command, cwd, env=None):
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves files in the folder that it builds."""
    folder = tmp_path_factory.mktemp('wheel')
    for name in ('neptune_jax', 'configs', 'experiments', 'tests', 'docs'):
        shutil.copytree(ROOT / name, folder / 'source' / name)
    for name in ('pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, folder / 'source')
    pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
    run(*pip, 'wheel', '--no-deps', '--no-build-isolation', './source', cwd=folder)
    (path,) = folder.glob('*.whl')
    return path


def test_the_wheel_holds_the_package_and_the_small_data_set_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = f'neptune_jax-{PROJECT["version"]}.dist-info/'
    assert f'{information}licenses/LICENSE' in names
    package = {name for name in names if not name.startswith(information)}
    mini = 'neptune_jax/data/sources/fashion_mnist_mini'
    data = {str(path.relative_to(ROOT)) for path in (ROOT / mini).iterdir()}
    assert f'{mini}/LICENSE' in data
    assert len(data) == 5
    page = {str(path.relative_to(ROOT)) for path in ROOT.glob('neptune_jax/serving/page/*')}
    assert len(page) == 3
    report = ROOT / 'neptune_jax/reporting/page'
    page |= {str(p.relative_to(ROOT)) for kind in ('css', 'js') for p in report.glob(f'*.{kind}')}
    assert len(page) == 7
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / 'neptune_jax').rglob('*.py')}
    assert package == modules | data | page


def test_a_config_file_in_an_empty_folder_is_trained_with_the_installed_package(wheel, tmp_path):
    installed, folder = tmp_path / 'installed', tmp_path / 'mine'
    pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
    run(*pip, 'install', '--no-deps', f'--target={installed}', wheel, cwd=tmp_path)
    folder.mkdir()
    (folder / 'mine.py').write_text(CONFIG)
    env = os.environ | {'PYTHONPATH': str(installed), 'XLA_FLAGS': xla.flags(1)}
    script = 'import neptune_jax; print(neptune_jax.__file__)'
    where = run(sys.executable, '-c', script, cwd=folder, env=env)
    assert Path(where.strip()) == installed / 'neptune_jax/__init__.py'
    output = run(
        *(sys.executable, '-m', 'neptune_jax.main', '--config=mine.py'),
        *('--config.data.name=fashion_mnist_mini', '--config.train.steps=2'),
        f'--config.data.dir={tmp_path}/data',
        cwd=folder,
        env=env,
    )
    assert 'run      runs/mine' in output
    summary = json.loads((folder / 'runs/mine/summary.json').read_text())
    assert summary['status'] == 'finished'
    assert summary['test']['count'] == 500


def broken_contracts(folder):
    """Returns which contracts of import-linter a copy of the package breaks."""
    command = (Path(sys.executable).with_name('lint-imports'), '--no-cache')
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()
    broken = [line.rpartition(' BROKEN')[0] for line in lines if ' BROKEN' in line]
    assert any(line.startswith('Contracts:') for line in lines), result.stdout + result.stderr
    assert (result.returncode == 0) == (not broken)
    return broken


@pytest.mark.parametrize(
    ('file', 'line', 'contract'),
    [
        ('errors.py', 'from neptune_jax import terminal', 'The floors of the package'),
        ('terminal.py', 'from neptune_jax import defaults', 'The floors of the package'),
        ('learning/losses.py', 'import neptune_jax.models', 'The floors of the package'),
        (
            'experiment.py',
            'from neptune_jax.inference import predictor',
            'The floors of the package',
        ),
        ('runs/reader.py', 'import neptune_jax.testing.xla', 'The floors of the package'),
        ('utils.py', '', 'The floors of the package'),
        ('data/splits.py', 'from neptune_jax.data import feed', 'Data go one way'),
        ('tracking/sinks/mlflow.py', 'from neptune_jax.tracking.sinks import neptune', 'Trackers'),
    ],
)
def test_an_import_of_a_higher_floor_breaks_a_contract(tmp_path, file, line, contract):
    shutil.copytree(ROOT / 'neptune_jax', tmp_path / 'neptune_jax')
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    assert broken_contracts(tmp_path) == []
    with (tmp_path / 'neptune_jax' / file).open('a') as module:
        module.write(f'\n{line}\n')
    (broken,) = broken_contracts(tmp_path)
    assert broken.startswith(contract)
