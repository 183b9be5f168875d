"""What the fuzz gives to `main`: command lines, config files and environments drawn from a seed."""

import dataclasses
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from neptune_jax import defaults, models
from neptune_jax.fields import Field

ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """A command of a user."""

    arguments: list[str]
    environ: dict[str, str]
    files: dict[str, bytes]  # in the folder where the command starts
    is_command: bool  # whether it needs a process of its own


# ------------------------------------------------------------------------------------- Values
# fmt: off
NUMBERS = [
    '-1', '0', '1', '2', '3', '5', '100', '-5', '0.5', '1.5', '-0.0', '1e-320', '1e308', '-1e308',
    '1e400', 'nan', 'inf', '-inf', 'NaN', 'Infinity', '0x10', '1_0', '1e3', '1,5', '٣', '½', '1.0',
    '00', '+1', '2147483647', '2147483648', '4294967296', '9223372036854775807',
    '9223372036854775808', str(2**100), '9' * 400, '9' * 5000,
]
LENGTHS = [
    '5', '5 parsecs', '0 steps', '-5 steps', '3 steps', '1 step', '0.5 epochs', '2 epochs', 'nan%',
    'inf epochs', '1e400 epochs', '1e3 steps', '٣ steps', '9' * 500 + ' steps', '5%', '0%',
    '0.0001%', '100%', '200%', '100 examples', '60 seconds', '0 seconds', '1 s', ' 7 steps ',
    f'{2**31} steps', f'{2**63} epochs', '999999999999 steps', 'steps', '5 steps, 6 steps',
]
TEXTS = [
    '', ' ', 'x', 'None', 'True', 'x' * 300, 'y/' * 300, 'z' * 20_000, 'ü', '日本語', '\U0001f600',
    '"', "'", '`', '$HOME', '{}', '[', ']', '(', '%', '%s', '{0}', '\\', '\n', 'a\nb', '\t',
    '\x1b[31m', '\udcff', '..', '.', '/', '/dev/null', '/dev/null/x', '/proc/self/mem', '~',
    '~nobody/x', '-1', '--', '=', 'a=b', ':', 'a:', ':b', 'a:b:c', 'json:dumps', 'os:getcwd',
    'os:sep', 'no.such:thing', 'math:sin', 'os:', '.:x', '..x:y', 'configs.cnn:get_config', 'tfds:',
    'tfds:mnist', 'tfds:../x', 'tfds:no_such_set', 'tfds:a/b/c/d', 'TFDS:mnist', 'file:///x',
    'gs://x/y', 'http://127.0.0.1:9/x',
]
TUPLES = [
    '', '()', '1', '1,2', '(1,2)', '[1, 2]', '1,2,3', '-1,5', '0,0', '8,8', '2,2', '4',
    '16,16,16,16', '1e3,2', 'a,b', "'a','b'", '((1,2),3)', '{}', '{1,2}', 'None', 'None,1', 'nan,1',
    'True,False', '(', "'x", '1,,2', '1 2', '(' * 300, '[' * 300, f'{2**31},1',
    f'{2**63},{2**63}', '1,' * 3000, '50%,75%', '75%,50%', "('10 steps','20 steps')",
    '0 steps,1 step', "'10 steps'", "b'x'", '1j', "('json:dumps',)", "'math:sin','os:getcwd'",
]
BOOLS = ['true', 'false', 'True', '1', '0', '2', 'yes', 'maybe', '', 'None']
GROUPS = [
    '{}', "{'x': 1}", "{'name': 'cnn'}", '3', '[]', 'None', '{', "{'hold': '2 epochs'}", '{1: 2}',
]
# fmt: on
POOLS = {
    int: NUMBERS,
    float: NUMBERS,
    str: TEXTS,
    tuple: TUPLES,
    bool: BOOLS,
    dict: GROUPS,
}


def _model_fields():
    for name, module in models.MODELS.items():
        for field in dataclasses.fields(module):
            if 'field' in field.metadata:
                yield f'model.{field.name}', field.metadata['field'], name


FIELDS = {name: (field, 'cnn') for name, field in defaults.FIELDS.items()}
FIELDS |= {name: (field, network) for name, field, network in _model_fields()}


def value(rng: random.Random, field: Field, data: Path) -> str:
    """Returns a text for a field: good, at an end of its range, or odd."""
    kind = rng.random()
    if kind < 0.25:
        good = [_text(field.default), *field.choices, *_ends(field)]
        good += LENGTHS[4:8] if field.units else []
        good = [text for text in good if text != 'fashion_mnist']  # takes long to prepare
        return rng.choice(good)
    if kind < 0.35:
        return rng.choice([f'{data}/images', f'{data}/arrays.npz', f'{data}/none', str(data)])
    if field.units and kind < 0.8:
        return rng.choice(LENGTHS)
    pool = POOLS[field.type] if kind < 0.85 else POOLS[rng.choice(list(POOLS))]
    return rng.choice(pool)


def _text(default):
    if default is None:
        return '3'
    return str(default)


def _ends(field):
    if not field.interval or field.units:
        return []
    ends = []
    for end in field.interval[1:-1].split(', '):
        base, _, power = end.partition('**')
        if power:
            number = int(base) ** int(power)
            ends += [str(number), str(number - 1)]
        else:
            ends += [end, f'-{end}']
    return ends


# -------------------------------------------------------------------------------- Command lines
def _settings(rng, data, count):
    """Returns arguments that set fields."""
    arguments = []
    for _ in range(count):
        name = rng.choice(list(FIELDS))
        field = FIELDS[name][0]
        text = value(rng, field, data)
        form = rng.random()
        if form < 0.03:
            group = name.rpartition('.')[0] or 'optim'
            arguments.append(f'--config.{group}={rng.choice(GROUPS)}')
        elif form < 0.08:
            odd = [
                '{}x',
                '{}[0]',
                '{}.y',
                '{}[',
                '{}..z',
                '.{}',
                '{}[:]',
                '{}()',
                '{}-a',
                '{}["a"]',
            ]
            arguments.append(f'--config.{rng.choice(odd).format(name)}={text}')
        elif form < 0.11:
            arguments.append(f'--noconfig.{name}')
        elif form < 0.13:
            arguments.append(f'--config.{name}')
        elif form < 0.17:
            arguments += [f'--config.{name}', text]
        elif form < 0.2:
            arguments += [f'--config.{name}={text}', f'-config.{name}={value(rng, field, data)}']
        else:
            arguments.append(f'--config.{name}={text}')
    return arguments


# fmt: off
ODD_FLAGS = [
    '--', '-', '---', '--=', '=', '--wokdir=x', '--workdir', '--dry_run=maybe', '--nodry_run', '-x',
    'extra', '--config', '--noconfig', '--config=', '--config=/', '--config=.', '--config=none.py',
    '--config=none.py:x', '--config=:', '--config=a:b:c', '--config=/dev/null', '--undefok=x',
    '--flagfile=', '--flagfile', '--flagfile=none', '--flagfile=/', '--flagfile=flags', '--help',
    '--flagfile=loop', '--flagfile=binary', '-h', '--helpfull', '--helpxml', '-?', '--help=x',
    '--only_check_args', '--only_check_flags', '--verbosity=x', '--verbosity=-9', '--v=x',
    '--stderrthreshold=x', '--logtostderr', '--log_dir=/none', '--config=empty.py', '--ﬂag=1',
    '--config=binary', '--workdir=', '--workdir=.', '--workdir=/', '--workdir=..', '--1',
    '--workdir=/dev/null/x', '--workdir=' + 'x' * 300, '--workdir=' + 'x/' * 2500,
    '--workdir=\udcff', '--workdir=flags', '--workdir=a b\n[c]', '--workdir=~', '--config.=1',
    '--workdir=~nobody/x', '--workdir=/proc/x', '--config.zzzz=1', '--config.0=1',
    '--config[seed]=1', '--config.seed', '--config.model.x=1', '--config.é=1', '--config.seed.x=1',
    '--config.model.depth=20', '--config.model.name=resnet', '--no-dry-run', '--dry-run=false',
]
# fmt: on
FLAG_FILES = {
    'flags': b'--config.train.steps=3\n# comment\n\n--config.model.norm=batch\n',
    'loop': b'--flagfile=loop\n',
    'binary': bytes(range(256)),
    'empty.py': b'',
}

# ---------------------------------------------------------------------------------- Config files
HEAD = """\
from ml_collections import ConfigDict, FrozenConfigDict, config_dict
from neptune_jax import defaults

def get_config():
    config = defaults.get_config()
    config.data.name = "fashion_mnist_mini"
"""
# fmt: off
ODD_VALUES = [
    'None', 'True', '-1', '0', '2**31', '2**63', '2**100', '10**5000', '1e308', 'float("nan")',
    'float("inf")', '-1.0', '0.0', '""', '"x"', '"a\\0b"', '"x" * 300', '"\\udcff"', 'b"x"', '[]',
    '()', '(1, 2)', '[1, 2]', '("a",)', '(None,)', '((1,),)', '(2**63, 1)', '(float("nan"),)',
    '("1 step",)', '{}', '{"x": 1}', 'ConfigDict()', 'ConfigDict({"x": 1})', 'object()',
    'lambda: 1', 'int', 'range(3)', 'config_dict.placeholder(int)', 'config_dict.placeholder(str)',
    'config.get_ref("seed")', '1j', 'config_dict.required_placeholder(str)',
    'config.get_ref("seed") / 0', '{1, 2}', 'Ellipsis', '__import__("numpy").int64(3)',
    '__import__("numpy").float32(3)', '__import__("numpy").zeros(3)', 'config', 'defaults',
    '__import__("numpy").array(["a"])', '__import__("decimal").Decimal(1)', '"5 steps"', '"0%"',
    '__import__("fractions").Fraction(1, 3)', '__import__("pathlib").Path("x")',
]
# fmt: on
WHOLE_FILES = [
    b'',
    b'\0',
    b'\xff\xfe',
    'x = "é"'.encode('latin-1'),
    b'# coding: nonsense\n',
    bytes(range(256)),
    b'def get_config(:\n',
    b'def get_config():\n  return 1 / 0\n',
    b'get_config = 3\n',
    b'get_config = int\n',
    b'def get_config(): pass\n',
    b'def get_config(a, b): pass\n',
    b'def get_config(): return {}\n',
    b'def get_config(): return get_config()\n',
    b'class get_config: pass\n',
    b'import sys\nsys.exit("bye\\nbye")\n',
    b'import sys\ndef get_config(): sys.exit(0)\n',
    b'import no_such_module\n',
    b'raise BaseException("a\\nb")\n',
    b'raise SystemExit\n',
    b'def get_config(): raise GeneratorExit\n',
    b'def get_config(): raise MemoryError\n',
    b'def get_config(): raise UnicodeDecodeError("utf-8", b"x", 0, 1, "no")\n',
    b'class E(Exception):\n  def __str__(self): raise ValueError\ndef get_config(): raise E\n',
    b'from ml_collections import ConfigDict\ndef get_config(): return ConfigDict()\n',
    b'from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({"model": 3})\n',
    b'def get_config():\n  import neptune_jax.main as m; return m.CONFIG\n',
    b'print("hello")\nfrom neptune_jax import defaults\nget_config = defaults.get_config\n',
    b'from neptune_jax.defaults import *\n',
]
# fmt: off
ODD_STATEMENTS = [
    'return FrozenConfigDict(config)', 'return config.to_dict()', 'return [config]', 'return None',
    'del config["optim"]', 'del config["seed"]', 'config.unknown = 1', 'config["a.b"] = 1',
    'config.optim.unknown = 1', 'config.unknown = ConfigDict()', 'config.model = None',
    'config.model = 3', 'config.model = {}', 'config.lock()', 'config.model = ConfigDict()',
    'config.model = ConfigDict({"name": 3})', 'yield 1', 'config.data.clean = 3',
    'config.model = ConfigDict({"name": "cnn", "parent": 1})', 'config.model.name = None',
    'config.model = ConfigDict({"name": "cnn", "num_classes": 3})', 'config.data = "x"',
    'config.model = ConfigDict({"name": "cnn", "features": "ab"})', 'config.x = config',
    'config.optim = config.optim.to_dict()', 'config.log = None', 'config.train = config.eval',
    'config.optim.options = {"a": object()}', 'config.optim.options = {"a": {1: 2}}',
    'config.optim.options.a = float("nan")', 'config.optim.options = config',
    'import os; os.chdir("/")',
]
# fmt: on


def _config_file(rng):
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(WHOLE_FILES)
    lines = [HEAD]
    for _ in range(rng.randint(1, 2)):
        if kind < 0.5:
            statement = rng.choice(ODD_STATEMENTS)
        else:
            statement = f'config.{rng.choice(list(FIELDS))} = {rng.choice(ODD_VALUES)}'
        if rng.random() < 0.7:  # as a file does that knows how
            lines.append(f'    with config.unlocked(), config.ignore_type(): {statement}\n')
        else:
            lines.append(f'    {statement}\n')
    return ''.join([*lines, '    return config\n']).encode()


# ---------------------------------------------------------------------------------- Environments
ENVIRONS = [  # that count while a command runs
    {'NEPTUNE_API_TOKEN': 'nonsense'},
    {'NEPTUNE_MODE': 'nonsense'},
    {'NEPTUNE_PROJECT': 'a/b/c'},
    {'TFDS_DATA_DIR': '/dev/null/x'},
    {'TZ': 'nonsense'},
    {'HOME': ''},
    {'HOME': '/dev/null'},
    {'TMPDIR': '/none'},
    {'MPLBACKEND': 'nonsense'},
    {'JAX_NUM_PROCESSES': '1'},
    {'SLURM_STEP_NUM_TASKS': '1'},
]
EARLY_ENVIRONS = [  # that count when libraries are imported
    *({'JAX_PLATFORMS': name} for name in ('cuda', 'tpu', 'rocm', 'nonsense', '', 'cpu,cuda', ',')),
    *({'XLA_FLAGS': flag} for flag in ('--xla_none=1', 'nonsense', '--', '', '-x', '--xla_dump')),
    *({'JAX_NUM_CPU_DEVICES': number} for number in ('0', '-1', 'x', '3', '1.5', '')),
    {'XLA_FLAGS': '--xla_force_host_platform_device_count=-2'},
    {'XLA_FLAGS': '--xla_force_host_platform_device_count=x'},
    {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'},
    {'CUDA_VISIBLE_DEVICES': 'nonsense'},
    {'JAX_DISABLE_JIT': '1'},
    {'JAX_DISABLE_JIT': 'perhaps'},
    {'JAX_ENABLE_X64': '1'},
    {'JAX_ENABLE_X64': 'x'},
    {'JAX_DEFAULT_MATMUL_PRECISION': 'x'},
    {'JAX_DEFAULT_MATMUL_PRECISION': 'highest'},
    {'JAX_TRACEBACK_FILTERING': 'x'},
    {'JAX_TRACEBACK_FILTERING': 'off', 'JAX_PLATFORMS': 'x'},
    {'JAX_NUMPY_DTYPE_PROMOTION': 'strict'},
    {'JAX_NUMPY_RANK_PROMOTION': 'raise'},
    {'JAX_DEFAULT_PRNG_IMPL': 'rbg'},
    {'JAX_TRANSFER_GUARD': 'disallow'},
    {'JAX_LOGGING_LEVEL': 'x'},
    {'JAX_COMPILATION_CACHE_DIR': '/dev/null/x'},
    {'JAX_DEBUG_NANS': '1'},
    {'MPLBACKEND': 'nonsense'},
    {'PYTHONHASHSEED': '7'},
    {'PYTHONOPTIMIZE': '2'},
    {'PYTHONIOENCODING': 'ascii'},
    {'LC_ALL': 'nonsense'},
    {'TERM': 'nonsense', 'COLUMNS': 'x'},
]


def write_images(data: Path) -> None:
    """Writes a small folder of images and an array file that cases name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 8, 8, 3), np.uint8)
    labels = np.arange(60) % 3
    np.savez(data / 'arrays.npz', images=pixels, labels=labels)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = data / f'images/{label}/{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


SMALL = ('--config.data.name=fashion_mnist_mini', '--config.model.features=2,2')


def draw(rng: random.Random, data: Path, commands: float) -> Case:
    """Returns a case; a share `commands` of all are commands of their own."""
    config = f'--config={ROOT}/configs/cnn.py'
    base = [config, *SMALL, '--workdir=run']
    kind = rng.random()
    if rng.random() < commands:
        settings = _settings(rng, data, 1) if kind < 0.2 else []
        arguments = [*base, '--config.train.steps=1', *settings]
        return Case(arguments, dict(rng.choice(EARLY_ENVIRONS)), {}, True)
    if kind < 0.2:
        text = rng.choice(['', '', '', ':', ':x', ':a:b'])
        settings = _settings(rng, data, rng.randint(0, 1))
        # The default data set takes long to prepare.
        arguments = [f'--config=mine.py{text}', SMALL[0], '--workdir=run', *settings]
        return Case(arguments, {}, {'mine.py': _config_file(rng)}, False)
    if kind < 0.3:
        odd = rng.sample(ODD_FLAGS, rng.randint(1, 2))
        arguments = [*base, *odd] if rng.random() < 0.7 else [*odd, *base]
        return Case(arguments, {}, FLAG_FILES, False)
    environ = dict(rng.choice(ENVIRONS)) if kind < 0.35 else {}
    if rng.random() < 0.12:
        base[0] = f'--config={ROOT}/configs/resnet20.py'
        base[2] = '--config.model.depth=8'
    elif rng.random() < 0.1:
        source = rng.choice(['image_folder', 'arrays', 'synthetic'])
        path = f'{data}/images' if source == 'image_folder' else f'{data}/arrays.npz'
        base += [f'--config.data.name={source}', '--config.train.batch_size=8']
        base += [f'--config.data.path={path}'] if source != 'synthetic' else []
    arguments = [*base, *_settings(rng, data, rng.choice([1, 1, 1, 2, 3]))]
    return Case(arguments, environ, {}, False)
