import json
import logging
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import pytest
from flax import linen
from ml_collections import ConfigDict

from configs import cnn3
from neptune_jax import experiment as experiments
from neptune_jax.data import feed as feeds
from neptune_jax.devices import compiling, drivers
from neptune_jax.learning import state as states
from neptune_jax.training import compiled

ROOT = Path(__file__).parents[2]
WRONG = {  # the examples of docs/numerics.md that fail in each call, by version of jaxlib
    '0.10': ['batched', 'two_broadcasts', 'rows', 'windows', 'seven_dimensions'],
}.get(re.match(r'\d+\.\d+', jaxlib.__version__)[0], ['batched', 'two_broadcasts'])

# Runs the examples as a person has them, without the flags of the tests.
SCRIPT = """
import json, re, sys
from pathlib import Path
from neptune_jax.devices import compiling

exec(re.findall('```python\\n(.*?)```', Path('docs/numerics.md').read_text(), re.DOTALL)[0])
guarded, names = sys.argv[1] == 'guarded', sys.argv[2:]

def jit(function, x):
    lowered = jax.jit(function).lower(x)
    return compiling.compile_lowered(lowered, {}) if guarded else lowered.compile()

examples = {f.__name__: (f, x) for f, x in EXAMPLES.items()}
errors = {}
for name in names or examples:
    f, x = examples[name]
    errors[name] = float(error(f, x, lambda g: jit(g, x), calls=20))
print(json.dumps(errors))
"""


def run_examples(*args, cache=''):
    """Returns the relative error of each example of docs/numerics.md."""
    env = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    env |= {
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    command = [sys.executable, '-c', SCRIPT, *args]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)


def batched(x, xp=jnp):
    """A product of which one operand is a broadcast array, and a sum: wrong without the guard."""
    return ((x @ xp.full_like(x, 0.3)) * x).sum(-1)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(16, 60, 60)).astype(np.float32)


def assert_batched(actual, x):
    expected = batched(x.astype(np.float64), np)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='found on x86-64 processors')
@pytest.mark.parametrize('name', WRONG)
def test_xla_still_needs_the_guard(name):
    process = run_examples('plain', name)
    assert process.returncode <= 0, process.stderr  # below zero: it crashed, which is a fault too
    fixed = process.returncode == 0 and json.loads(process.stdout)[name] < 1e-5
    assert not fixed, (
        f'XLA computes the example {name!r} of docs/numerics.md correctly now, jaxlib '
        f'{jaxlib.__version__}: its rule in devices/compiling.py can be removed'
    )


def test_the_guard_cures_all_examples_also_from_the_compilation_cache(tmp_path):
    cached = []
    for _ in range(2):
        process = run_examples('guarded', cache=tmp_path)
        assert process.returncode == 0, process.stderr
        errors = json.loads(process.stdout)
        assert len(errors) == 6
        assert all(error < 1e-6 for error in errors.values()), errors
        cached.append(sorted(path.name for path in tmp_path.glob('*-cache')))
    assert cached[0]
    assert cached[0] == cached[1]


@pytest.mark.parametrize('ahead_of_time', [True, False])
@pytest.mark.parametrize('driver', ['jit', 'pmap', 'shard_map'])
def test_no_driver_computes_wrong_numbers(driver, ahead_of_time, x):
    config = ConfigDict({'driver': driver, 'num_devices': 2, 'sync_batch_norm': True})
    parallel = drivers.create(config, ahead_of_time=ahead_of_time)

    def step(batch):
        # Half of the batch on each device; the results must be equal on all of them.
        sums = batched(batch)
        if parallel.axis_name:
            sums = jax.lax.all_gather(sums, parallel.axis_name, tiled=True)
        return sums

    batch = parallel.shard(x)
    run = parallel.compile(step, batch, sharded=0)
    assert_batched(run(batch), x)


def test_an_exported_program_is_compiled_with_the_guard(x):
    exported = jax.export.export(jax.jit(batched))(x)
    lowered = jax.jit(exported.call).lower(x)
    assert compiling.unsafe_fusions(lowered.compile().as_text())
    assert_batched(compiling.compile_lowered(lowered, {})(x), x)


def test_the_initial_state_is_computed_with_the_guard(x):
    class Model(linen.Module):
        @linen.compact
        def __call__(self, images):
            key = jax.random.key(0)
            return self.param('sums', lambda _: batched(jax.random.normal(key, x.shape)))

    state = states.create(Model(), optax.sgd(0.1), (1, 1, 1), seed=0)
    assert_batched(state.params['sums'], np.asarray(jax.random.normal(jax.random.key(0), x.shape)))


def test_a_step_for_several_seeds_is_compiled_again_and_computes_the_gradients(caplog):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(128, 64)), rng.integers(0, 10, 128, np.int32)
    hidden, output = rng.normal(size=(8, 64, 32)), rng.normal(size=(8, 32, 10))
    bias = rng.normal(size=(8, 10))

    def loss(params, inputs, labels):
        hidden, output, bias = params
        logits = jnp.maximum(inputs @ hidden, 0) @ output + bias[None]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    params = [value.astype(np.float32) for value in (hidden, output, bias)]
    grads = jax.jit(jax.vmap(jax.grad(loss), (0, None, None)))
    args = (params, inputs.astype(np.float32), labels)
    with caplog.at_level(logging.DEBUG, compiling.__name__):
        grads = compiling.compile_lowered(grads.lower(*args), {})(*args)
    assert 'compiling again without the fusions' in caplog.text

    features = np.maximum(np.einsum('bd,sdh->sbh', inputs, hidden), 0)
    logits = features @ output + bias[:, None]
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    d_logits = (exp / exp.sum(-1, keepdims=True) - np.eye(10)[labels]) / len(labels)
    d_features = np.einsum('sbk,shk->sbh', d_logits, output) * (features > 0)
    expected = (
        np.einsum('bd,sbh->sdh', inputs, d_features),
        np.einsum('sbh,sbk->shk', features, d_logits),
        d_logits.sum(1),
    )
    for actual, value in zip(grads, expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=0, atol=1e-5 * np.abs(value).max())


def test_the_training_step_of_cnn3_is_compiled_once(data_dir, monkeypatch, standard_promotion):
    config = cnn3.get_config()
    config.data.update(name='fashion_mnist_mini', dir=str(data_dir))
    config.parallel.num_devices = 1
    experiment = experiments.create(config)
    compilations = []
    compile_once = jax.stages.Lowered.compile

    def counted(*args, **options):
        compilations.append(options)
        return compile_once(*args, **options)

    monkeypatch.setattr(jax.stages.Lowered, 'compile', counted)
    compiled.compile_train_step(experiment, feeds.create(experiment.dataset, experiment.parallel))
    assert len(compilations) == 1


class FakeLowered:
    """Stands for a program whose fusions are unsafe in the first compilations."""

    def __init__(self, platform, unsafe):
        self.platform, self.unsafe, self.options = platform, unsafe, []

    def compile(self, compiler_options):
        self.options.append(compiler_options)
        hlo = program('dot', 'reduce') if len(self.options) <= self.unsafe else ''
        executable = SimpleNamespace(client=SimpleNamespace(platform=self.platform))
        return SimpleNamespace(runtime_executable=lambda: executable, as_text=lambda: hlo)


def test_the_options_of_the_caller_are_kept():
    lowered = FakeLowered('cpu', unsafe=1)
    compiling.compile_lowered(lowered, {'xla_backend_optimization_level': 0})
    first, second = lowered.options
    assert first == {'xla_backend_optimization_level': 0}
    assert second == first | compiling.SEPARATE


def test_a_program_for_a_gpu_is_left_alone():
    lowered = FakeLowered('cuda', unsafe=1)
    compiling.compile_lowered(lowered, {})
    assert lowered.options == [{}]


def test_a_program_that_stays_unsafe_is_refused():
    with pytest.raises(RuntimeError, match=r'wrong numbers: fused_1\. Set XLA_FLAGS'):
        compiling.compile_lowered(FakeLowered('cpu', unsafe=2), {})


def program(*operations, kind='__ynn_fusion', dims='4,5', operands=()):
    """Returns the text of a program with one fusion.

    Args:
        *operations: of the fusion. Each takes the result of the one before.
        kind: of the fusion.
        dims: of all arrays.
        operands: the names of a second operand, by operation; `%b` is a broadcast array.
    """
    operands = dict(operands)
    lines = [
        f'  %p = f32[{dims}]{{1,0}} parameter(0)',
        '  %zero = f32[] constant(0)',
    ]
    if '%b' in operands.values():
        lines.append(f'  %b = f32[{dims}]{{1,0}} broadcast(%zero), dimensions={{}}')
    last = 'p'
    for i, operation in enumerate(operations):
        second = operands.get(operation, '%zero' if 'reduce' in operation else '%p')
        lines.append(f'  %v{i} = f32[{dims}]{{1,0}} {operation}(%{last}, {second}), x={{(1)}}')
        last = f'v{i}'
    lines[-1] = lines[-1].replace('  %', '  ROOT %', 1)
    body = '\n'.join(lines)
    return f"""HloModule jit_f, is_scheduled=true

FileNames
1 "f.py"

%region_0 (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b.1), metadata={{op_name="reduce_sum"}}
}}

%fused_1 (p: f32[{dims}]) -> f32[{dims}] {{
{body}
}}

ENTRY %main (x.1: f32[{dims}]) -> f32[{dims}] {{
  %x.1 = f32[{dims}]{{1,0}} parameter(0), metadata={{op_name="x"}}
  ROOT %ynn_fusion = f32[{dims}]{{1,0}} fusion(%x.1), kind=kCustom, calls=%fused_1, \
metadata={{op_name="f"}}, backend_config={{"fusion_config":{{"kind":"{kind}"}}}}
}}

"""


@pytest.mark.parametrize(
    ('hlo', 'unsafe'),
    [
        (program('dot', 'multiply', 'reduce'), True),
        (program('reduce', 'exponential', 'dot'), True),
        (program('convolution', 'reduce'), True),
        (program('dot'), False),
        (program('dot', 'add'), False),
        (program('multiply', 'reduce'), False),
        (program('multiply', 'reduce', operands={'multiply': '%b'}), False),
        (program('reduce-window'), False),
        (program('convolution', 'maximum', 'reduce-window'), False),
        (program('convolution', 'add', 'reduce-window', operands={'add': '%b'}), False),
        (program('dot', 'reduce-window', operands={'dot': '%b'}), True),
        (program('multiply', 'reduce', dims='1,2,3,4,5,6,7'), False),
        (program('dot', 'reduce', kind='__onednn_fusion'), False),
        ('', False),
        # What the parser does not know is unsafe.
        (program('reduce').replace('= f32[4,5]{1,0} reduce', '= (f32[4], f32[4]) reduce'), True),
    ],
)
def test_unsafe_fusions_are_found_in_the_text_of_a_program(hlo, unsafe):
    assert compiling.unsafe_fusions(hlo, (0, 12, 0)) == (['fused_1'] if unsafe else [])


def test_a_reduction_of_a_broadcast_array_is_unsafe():
    reduced = program('negate', 'reduce', operands={'negate': '%b'}).replace('(%p, %b)', '(%b)')
    assert compiling.unsafe_fusions(reduced, (0, 12, 0)) == ['fused_1']


@pytest.mark.parametrize(
    ('hlo', 'unsafe'),
    [
        (program('convolution', 'maximum', 'reduce-window'), True),
        (program('multiply', 'bitcast', 'reduce-window'), True),
        (program('reduce-window'), False),
        (program('multiply', 'reduce', dims='1,2,3,4,5,6,7'), True),
        (program('multiply', 'reduce', dims='1,2,3,4,5,6'), False),
    ],
)
def test_more_fusions_are_unsafe_before_jaxlib_0_12(hlo, unsafe):
    assert compiling.unsafe_fusions(hlo, (0, 10, 2)) == (['fused_1'] if unsafe else [])
