"""`python -m neptune_jax.main` through the real command line, on real images."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neptune_jax.runs import reader

ROOT = Path(__file__).parents[2]
MINI = ('--config.data.name=fashion_mnist_mini',)
CNN = ('--config=configs/cnn.py', *MINI, '--config.model.features=4,8')


def succeeds(*command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def assert_ok(result):
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.stem)
def test_every_config_runs(run, tmp_path, path):
    result = assert_ok(
        run(f'--config={path}', *MINI, '--config.train.steps=2', f'--workdir={tmp_path}/run')
    )
    assert result.stderr == ''
    summary = reader.read_summary(tmp_path / 'run')
    assert (summary['status'], summary['step']) == ('finished', 2)
    assert summary['test']['count'] == 500
    assert f'{summary["params"]:,}' in result.stdout
    for name, value in summary['test'].items():
        numbers = {'count': f'{value:,}', 'classes': f'{value} of 10'}
        shown = numbers.get(name, f'{value:.4f}')
        assert re.search(rf'{name}\s+│\s+{re.escape(shown)}', result.stdout)
    assert f'run      {tmp_path}/run' in result.stdout
    assert re.search(
        r'step +2/2  loss \d.*  accuracy \d.*  [\d,]+ images/s  0 s left', result.stdout
    )


def test_the_first_command_of_the_readme_needs_no_network(run, tmp_path):
    flags = ('--config=configs/cnn.py', *MINI, '--config.train.epochs=2')
    flags += (f'--config.data.dir={tmp_path}/data', f'--workdir={tmp_path}/run')
    offline = ('unshare', '--map-root-user', '--net')
    if not succeeds(*offline, 'true'):
        pytest.skip('unshare cannot switch the network off here')
    result = assert_ok(run(*flags, prefix=offline))
    assert 'fashion_mnist_mini: reading the archives in' in result.stdout
    summary = reader.read_summary(tmp_path / 'run')
    assert summary['epochs'] == 2.0
    assert summary['test']['accuracy'] > 0.5  # two epochs of 2,250 images; chance is 0.1


def test_a_terminal_gets_a_progress_bar(command, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        **command(
            *(*CNN, '--config.train.steps=4', '--config.log.every=1 step'),
            f'--workdir={tmp_path}/run',
            devices=4,
        ),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = b''
    while True:
        try:
            output += os.read(ours, 65536)
        except OSError:  # the other side has closed
            break
    assert process.wait() == 0
    text = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', output.decode())
    assert re.search(r'step 4/4 ━+ loss \d\.\d+  accuracy \d\.\d+  [\d,]+ images/s .* left', text)
    assert 'val accuracy' in text
    assert 'devices  4 x cpu, driver pmap' in text


@pytest.fixture
def small_disk(tmp_path):
    """A folder, and the start of a command that puts a small file system there for one command.

    The file system ends with the command, which leaves a copy of its folder `run` in `left`.
    """
    disk = tmp_path / 'disk'
    disk.mkdir()
    namespace = ('unshare', '--map-root-user', '--mount', 'sh', '-c')
    mount = f'mount -t tmpfs -o size=4m tmpfs {disk}'
    if not succeeds(*namespace, mount):
        pytest.skip('no file system can be mounted here')
    script = f'{mount} && "$@"; status=$?; cp -a {disk}/run {tmp_path}/left; exit $status'
    return disk, (*namespace, script, 'sh'), tmp_path / 'left'


def test_a_full_disk_stops_the_run_and_keeps_its_checkpoints(run, small_disk):
    disk, prefix, left = small_disk
    flags = ('--config=configs/cnn.py', *MINI, '--config.train.steps=40')
    flags += ('--config.checkpoint.every=4 steps', '--config.checkpoint.keep=100')
    result = run(*flags, f'--workdir={disk}/run', prefix=prefix)
    assert result.returncode == 2
    assert result.stderr.startswith(f'error: the disk of {disk}/run is full; free some space')
    assert result.stderr.count('\n') == 1, result.stderr
    assert reader.read_summary(left)['status'] == 'failed'
    kept = max(int(path.stem) for path in (left / 'checkpoints').glob('*.crc32'))
    # Moved to a disk with room, it goes on.
    result = assert_ok(run(*flags, f'--workdir={left}'))
    assert f'resuming after step {kept}' in result.stdout
    assert reader.read_summary(left)['status'] == 'finished'


def test_a_disk_without_room_for_a_checkpoint_is_refused_before_training(run, small_disk):
    disk, prefix, left = small_disk
    flags = ('--config=configs/net.py', *MINI, f'--workdir={disk}/run')  # 8 MiB of state
    result = run(*flags, prefix=prefix)
    assert result.returncode == 2
    assert result.stderr.startswith(f'error: the disk of {disk}/run is full; free some space')
    assert result.stderr.count('\n') == 1, result.stderr
    assert 'compiled' not in result.stdout
    assert reader.read_rows(left) == []


def test_a_disk_that_is_only_to_be_read_is_refused_before_training(run, tmp_path):
    mount = f'mount -t tmpfs -o ro tmpfs {tmp_path} && exec "$@"'
    prefix = ('unshare', '--map-root-user', '--mount', 'sh', '-c', mount, 'sh')
    if not succeeds(*prefix, 'true'):
        pytest.skip('no file system can be mounted here')
    result = run(*CNN, f'--workdir={tmp_path}/run', prefix=prefix)
    assert result.returncode == 2
    assert result.stderr.startswith(f'error: --workdir={tmp_path}/run cannot be written: ')
    assert 'Read-only file system' in result.stderr
    assert result.stderr.count('\n') == 1


def test_the_status_can_be_written_on_a_disk_without_a_free_byte(small_disk):
    disk, prefix, left = small_disk
    script = (
        'import sys\n'
        'from pathlib import Path\n'
        'from configs import cnn\n'
        'from neptune_jax.errors import UserError\n'
        'from neptune_jax.runs import writer\n'
        'opened = writer.open_run(sys.argv[1], cnn.get_config(), {})\n'
        'try:\n'
        '    with opened as run, run.status(), Path(sys.argv[1], "filler").open("wb", 0) as file:\n'
        '        while True:\n'
        '            file.write(bytes(4096))\n'
        'except UserError as error:\n'
        '    print(error)\n'
    )
    command = (*prefix, sys.executable, '-c', script, f'{disk}/run')
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f'the disk of {disk}/run is full')
    assert (left / 'filler').stat().st_size > 3.5e6
    assert reader.read_summary(left)['status'] == 'failed'


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ((), 'no --config given; try --config=configs/cnn.py'),
        (('--config=configs/nope.py',), '--config=configs/nope.py: there is no such file'),
        (
            (*CNN, '--config.optim.lerning_rate=1'),
            '--config.optim.lerning_rate: there is no such field; '
            'did you mean optim.learning_rate?',
        ),
        (
            (*CNN, '--config.optim.learning_rate=fast'),
            "flag --config.optim.learning_rate=fast: could not convert string to float: 'fast'",
        ),
        (('--config=configs',), '--config=configs: is no file'),
        (
            (*CNN, '--flagfile=nope'),
            '--flagfile: ERROR:: Unable to open flagfile: [Errno 2] No such',
        ),
        (
            (*CNN, '--config.optim={"x": 1}'),
            '--config.optim: optim is a group; set its fields one by',
        ),
        ((*CNN, '--config.zzzz=1'), '--config.zzzz: there is no such field; did you mean '),
        (
            (*CNN, '--config.seed[0]=1'),
            '--config.seed[0]: there is no such field; did you mean seed?',
        ),
        (
            (*CNN, '--config.train.steps=2147483648'),
            'train.steps=2147483648 must be at least 1 and be',
        ),
        ((*CNN, '--wokdir=x'), "Unknown command line flag 'wokdir'. Did you mean: workdir ?"),
        ((*CNN, 'extra'), "'extra' is no flag; flags look like --config=configs/cnn.py"),
        (
            (*CNN, '--config.data.val_fraction=1.5'),
            'data.val_fraction=1.5 must be at least 0 and below 1',
        ),
        ((*CNN, '--workdir=/dev/null/run'), '--workdir=/dev/null/run cannot be written'),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path, flags, message):
    if not any(flag.startswith('--workdir') for flag in flags):
        flags = (*flags, f'--workdir={tmp_path}/run')
    result = run(*flags)
    assert result.returncode == 2
    assert result.stderr.startswith(f'error: {message}')
    assert result.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        ('x = 1\n', '--config={file}: the file has no function get_config()'),
        ('def get_config(:\n', '{file}, line 1: invalid syntax'),
        (
            'from configs import cnn\n\n\ndef get_config():\n    config = cnn.get_config()\n'
            '    config.optim.lerning_rate = 1\n    return config\n',
            "{file}, line 6: there is no field 'lerning_rate'; did you mean 'learning_rate'?",
        ),
        (
            'from configs import cnn\n\n\ndef get_config():\n    config = cnn.get_config()\n'
            '    config.train.batch_size = "many"\n    return config\n',
            "{file}, line 6: Could not override field 'batch_size'",
        ),
        ('def get_config():\n    return 1 / 0\n', '{file}, line 2: ZeroDivisionError: division by'),
        (
            'class Odd(Exception):\n    pass\n\n\ndef get_config():\n    raise Odd("a\\nb")\n',
            '{file}, line 6: Odd: a b',
        ),
        ('def get_config():\n    assert False\n', '{file}, line 2: AssertionError'),
        ('import no_such_module\n', "{file}, line 1: No module named 'no_such_module'"),
        ('def get_config():\n    exit(3)\n', '{file}, line 2: SystemExit: 3'),
        (
            'def get_config():\n    return {}\n',
            '--config={file}: get_config() returns dict, not a ConfigDict',
        ),
        (
            'import ml_collections as ml\n\n\ndef get_config():\n    return ml.ConfigDict()\n',
            'the config has no field seed; start it from neptune_jax.defaults.get_config()',
        ),
        ('raise BaseException("a\\nb")\n', '{file}, line 1: BaseException: a b'),
        ('def get_config():\n    return get_config()\n', '{file}, line 2: RecursionError: maximum'),
        ('def get_config(a, b):\n    pass\n', '{file}: get_config() missing 2 required positional'),
        (
            'from configs import cnn\n\n\ndef get_config():\n    config = cnn.get_config()\n'
            '    with config.unlocked(), config.ignore_type():\n        config.optim = 3\n'
            '    return config\n',
            'the group optim of the config must be a ConfigDict, not int',
        ),
    ],
)
def test_a_mistake_in_a_config_file_is_said_with_its_line(run, tmp_path, body, message):
    file = tmp_path / 'mine.py'
    file.write_text(body)
    result = run(f'--config={file}', f'--workdir={tmp_path}/run')
    assert result.returncode == 2
    assert result.stderr.startswith('error: ' + message.format(file=file))
    assert result.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('content', [b'\0', bytes(range(256)), 'x = "é"'.encode('latin-1')])
def test_a_config_that_is_no_text_is_refused(run, tmp_path, content):
    file = tmp_path / 'mine.py'
    file.write_bytes(content)
    result = run(f'--config={file}', f'--workdir={tmp_path}/run')
    assert result.returncode == 2
    assert result.stderr.startswith(f'error: {file}')
    assert result.stderr.count('\n') == 1


def test_of_several_configs_the_last_one_counts_and_a_flag_file_may_name_it(run, tmp_path):
    flags = tmp_path / 'flags'
    flags.write_text(
        '--config=configs/net.py\n# a comment\n--config.data.name=fashion_mnist_mini\n'
    )
    result = run('--config=configs/cnn.py', f'--flagfile={flags}', '--config.train.steps=0')
    assert result.stderr.startswith('error: train.steps=0 must be at least 1')
    assert_ok(run('--config=none.py', f'--flagfile={flags}', '--only_check_args'))


def test_another_config_in_the_same_directory_is_refused(run, tmp_path):
    flags = (*CNN, f'--workdir={tmp_path}/run')
    assert_ok(run(*flags, '--config.train.steps=1'))
    before = (tmp_path / 'run/summary.json').read_bytes()
    result = run(*flags, '--config.train.steps=2')
    assert result.returncode == 2
    assert 'holds a run of another config (train.steps: 1 there, 2 here)' in result.stderr
    assert (tmp_path / 'run/summary.json').read_bytes() == before


def test_help_is_short_and_says_how_to_set_a_field(run):
    result = run('--help')
    assert 'python -m neptune_jax.main --config=configs/cnn.py' in result.stdout
    assert '--workdir' in result.stdout
    assert len(result.stdout.splitlines()) < 30
    assert '--config=FILE' in result.stdout
    assert '--config.GROUP.FIELD=VALUE' in result.stdout
    for group in ('model', 'data', 'data.clean', 'augment', 'optim', 'neptune'):
        assert re.search(rf'groups: .*\b{group}\b', result.stdout), group


@pytest.mark.parametrize('name', ['show', 'sync'])
def test_every_command_has_a_help_text(name):
    command = [sys.executable, '-m', f'neptune_jax.{name}', '--help']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, '')
    assert f'python -m neptune_jax.{name}' in result.stdout
    own = {
        'show': ('--out=VALUE', '--config=FILE', 'groups: model'),
        'sync': ('--to=VALUE', 'RUN_DIR'),
    }
    for text in own[name]:
        assert text in result.stdout


def test_a_field_of_the_model_that_the_file_does_not_state_can_be_set():
    script = (
        'from neptune_jax import cli\n'
        'config = cli.define_config()\n'
        'cli.run(lambda args: print(config.value.model.to_json()))\n'
    )

    def parse(*flags):
        command = [sys.executable, '-c', script, '--config=configs/cnn.py', *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    result = parse('--config.model.norm=batch', '--config.model.features=4,8')
    model = json.loads(assert_ok(result).stdout)
    assert (model['norm'], model['features'], model['dropout']) == ('batch', [4, 8], 0.0)
    result = parse('--config.model.nrom=batch')
    assert result.returncode == 2
    assert result.stderr == (
        'error: --config.model.nrom: there is no such field; did you mean model.norm?\n'
    )


def test_a_dry_run_tells_what_a_step_costs_and_writes_nothing(run, tmp_path):
    result = assert_ok(run(*CNN, '--dry_run', f'--workdir={tmp_path}/run', devices=4))
    assert result.stderr == ''
    assert "mesh     {'device': 4}" in result.stdout
    assert 'int32[4, 32]' in result.stdout
    assert 'sees float32[32, 28, 28, 1] on each device' in result.stdout
    assert re.search(r'floating-point operations +│ +0\.\d\d G', result.stdout)
    assert re.search(r'data on the device +│ +2\.25 MiB', result.stdout)  # 3,000 images and labels
    assert re.search(r'│ 1 +│ 0\.00 +│ 0\.002 ', result.stdout)
    assert not (tmp_path / 'run').exists()


def test_imports_stay_light():
    script = (
        'import sys, neptune_jax.training.loop\n'
        'heavy = {"tensorflow", "neptune", "torch"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    subprocess.run([sys.executable, '-W', 'error', '-c', script], cwd=ROOT, check=True)
