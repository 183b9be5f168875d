"""Time of each operation of a network, ours and lax's, compared with what the machine can do.

    python -m experiments.benchmarks.operations --batch_sizes=128
    python -m experiments.benchmarks.operations --report

The ceilings are a product of two matrices of 1024 x 1024, and adding 1 to an array of 64 MiB. Each
operation is a program of its own. So are the logits of a whole network and the gradient of its
loss, ours and plain Flax's. The programs take turns.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.contestants import CLASSES, NETWORKS, plain_flax
from neptune_jax import models
from neptune_jax.devices import startup
from neptune_jax.learning import losses
from neptune_jax.models import flops, ops

RESULTS = Path(__file__).parent / 'results/operations.jsonl'
SECONDS_A_ROUND = 0.03

# Convolutions of the networks: side of the image, channels, features, kernel, stride, padding.
LAYERS = {
    'cnn3/1': (28, 1, 32, 3, 1, 'SAME'),
    'cnn3/2': (14, 32, 64, 3, 1, 'SAME'),
    'cnn3/3': (7, 64, 128, 3, 1, 'SAME'),
    'simple_net/1': (28, 1, 6, 5, 1, 'VALID'),
    'simple_net/2': (12, 6, 16, 5, 1, 'VALID'),
    'resnet20/first': (32, 3, 16, 3, 1, 'SAME'),
    'resnet20/16': (32, 16, 16, 3, 1, 'SAME'),
    'resnet20/16-32': (32, 16, 32, 3, 2, 'SAME'),
    'resnet20/32': (16, 32, 32, 3, 1, 'SAME'),
    'resnet20/64': (8, 64, 64, 3, 1, 'SAME'),
}
# The first layer of each network.
FIRST = {'cnn3': 'cnn3/1', 'simple_net': 'simple_net/1', 'resnet20': 'resnet20/first'}

# Its name; its work, as {'flop': floating-point operations} or {'bytes': at least read and
# written}; our function and lax's, both without arguments.
Operation = tuple[str, dict[str, float], Callable, Callable]


def alternate(functions: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds a call in each round, by name; the functions take turns."""
    repeats = {}
    for name, function in functions.items():
        jax.block_until_ready(function())
        began = time.perf_counter()
        jax.block_until_ready(function())
        repeats[name] = max(1, int(SECONDS_A_ROUND / (time.perf_counter() - began)))
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            for _ in range(repeats[name]):
                result = function()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - began) / repeats[name])
    return seconds


def operations(layer: str, batch_size: int) -> Iterator[Operation]:
    """Yields the operations of a layer."""
    side, channels, features, width, stride, padding = LAYERS[layer]
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch_size, side, side, channels))
    kernel = jax.random.normal(keys[1], (width, width, channels, features))

    def convolutions(conv):
        def forward(x, kernel):
            return conv(x, kernel, (stride, stride), padding)

        grad = jax.random.normal(keys[2], jax.eval_shape(forward, x, kernel).shape)
        programs = {
            'forward': jax.jit(lambda x, k, g: jax.vjp(forward, x, k)[0]),
            'input gradient': jax.jit(lambda x, k, g: jax.vjp(forward, x, k)[1](g)[0]),
            'kernel gradient': jax.jit(lambda x, k, g: jax.vjp(forward, x, k)[1](g)[1]),
        }
        return {name: lambda run=run: run(x, kernel, grad) for name, run in programs.items()}, grad

    def lax_conv(x, kernel, strides, padding):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)

    ours, y = convolutions(ops.conv)
    theirs, _ = convolutions(lax_conv)
    for name in ours:
        if channels > 3 or name != 'input gradient':  # the images have no gradient
            flop = 2 * y.size * width * width * channels
            yield name, {'flop': flop}, ours[name], theirs[name]

    def pooling(pool):
        run = jax.jit(lambda y: jax.grad(lambda y: jnp.sum(pool(y) ** 2))(y))
        return lambda: run(y)

    flax_pool = pooling(lambda y: nn.max_pool(y, (2, 2), (2, 2)))
    # Reads the input and writes its gradient, writes the output and reads its gradient.
    moved = {'bytes': y.nbytes * (2 + 2 / 4)}
    yield 'max pool and gradient', moved, pooling(ops.max_pool), flax_pool


def whole(network: str, batch_size: int) -> Iterator[Operation]:
    """Yields the logits and the loss gradient of a network; Flax's take the place of lax's."""
    side, channels, features, width, _, padding = LAYERS[FIRST[network]]
    images = jax.random.normal(jax.random.key(0), (batch_size, side, side, channels))
    labels = jnp.arange(batch_size) % CLASSES
    config = importlib.import_module(f'configs.{network}').get_config()
    model = models.create_model(config.model, CLASSES)
    kind = plain_flax.ResNet if 'depth' in NETWORKS[network] else plain_flax.CNN
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    params = variables.pop('params')

    def programs(model):
        @jax.jit
        def gradient(params):
            def mean_loss(params):
                inputs = {'params': params, **variables}
                logits, _ = model.apply(inputs, images, train=True, mutable='batch_stats')
                return losses.cross_entropy(logits, labels).mean()

            return jax.grad(mean_loss)(params)

        logits = jax.jit(
            lambda params: model.apply({'params': params, **variables}, images, train=False)
        )
        return lambda: logits(params), lambda: gradient(params)

    forward = flops.forward(model, images.shape[1:]) * batch_size
    # The backward pass has twice the work of the forward pass, less the gradient of the images.
    outputs = side if padding == 'SAME' else side - width + 1
    unneeded = 2 * batch_size * outputs**2 * width**2 * channels * features
    work = {'logits': {'flop': forward}, 'loss gradient': {'flop': 3 * forward - unneeded}}
    pairs = zip(programs(model), programs(kind(**NETWORKS[network])), strict=True)
    for (name, flop), (ours, theirs) in zip(work.items(), pairs, strict=True):
        yield name, flop, ours, theirs


def ceilings(rounds: int) -> dict[str, float]:
    """Returns GFLOP/s of a matrix product, and GB/s that a sum reads and writes."""
    matrix, vector = jnp.ones((1024, 1024)), jnp.ones(2**24)
    product, add = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    seconds = alternate({'p': lambda: product(matrix), 'a': lambda: add(vector)}, rounds)
    return {
        'matrix_product_gflops': round(2 * 1024**3 / np.median(seconds['p']) / 1e9, 1),
        'copy_gb_per_second': round(2 * vector.nbytes / np.median(seconds['a']) / 1e9, 1),
    }


def report(path: Path) -> None:
    """Prints the table of a file of results, as Markdown."""
    print('| of | batch | operation | ms | lax, ms | against lax | ours | lax | ceiling |')
    print('|---|---:|---|' + '---:|' * 6)
    for record in map(json.loads, path.read_text().splitlines()):
        low, middle, high = record['ratio_to_lax']
        key, unit, ceiling = 'gflops', 'GFLOP/s', record['matrix_product_gflops']
        if 'ours_gb_per_second' in record:
            key, unit, ceiling = 'gb_per_second', 'GB/s', record['copy_gb_per_second']
        print(
            f'| {record["layer"]} | {record["batch_size"]} | {record["operation"]} '
            f'| {record["ms"]:.2f} | {record["lax_ms"]:.2f} '
            f'| {middle:.2f} ({low:.2f}-{high:.2f}) '
            f'| {record[f"ours_{key}"]:.0f} | {record[f"lax_{key}"]:.0f} | {ceiling:.0f} {unit} |'
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--batch_sizes', default='32,128,512')
    parser.add_argument('--layers', default=','.join((*LAYERS, *FIRST)), help='or networks')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--report', action='store_true', help='show the results that there are')
    args = parser.parse_args()
    if args.report:
        report(args.out)
        return
    startup.prepare()
    with args.out.open('w') as file:
        for batch_size in map(int, args.batch_sizes.split(',')):
            for layer in args.layers.split(','):
                limits = ceilings(args.rounds)  # each time, because the machine is shared
                profiled = whole if layer in FIRST else operations
                for name, work, ours, theirs in profiled(layer, batch_size):
                    seconds = alternate({'ours': ours, 'lax': theirs}, args.rounds)
                    ratios = np.divide(seconds['lax'], seconds['ours'])
                    rates = {
                        f'{who}_{"gflops" if unit == "flop" else "gb_per_second"}': round(
                            amount / np.median(seconds[who]) / 1e9, 1
                        )
                        for unit, amount in work.items()
                        for who in seconds
                    }
                    record = {
                        'benchmark': 'operations',
                        'layer': layer,
                        'batch_size': batch_size,
                        'operation': name,
                        'ms': round(1e3 * float(np.median(seconds['ours'])), 3),
                        'lax_ms': round(1e3 * float(np.median(seconds['lax'])), 3),
                        'ratio_to_lax': np.round(np.percentile(ratios, [25, 50, 75]), 3).tolist(),
                        **rates,
                        **limits,
                        'jax': jax.__version__,
                    }
                    file.write(json.dumps(record) + '\n')
                    file.flush()
                    print(record, flush=True)


if __name__ == '__main__':
    main()
