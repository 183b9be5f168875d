"""The rung cpu90 and the same training in PyTorch, in alternation.

    pip install -r requirements-bench.txt
    python -m experiments.speedrun.torch_cpu90 --seeds=5

The same initial parameters, batches, optimizer, schedule and evaluation, in eager PyTorch. Its
clock leaves out the initial parameters, which are copied. Ours includes them.
"""

import argparse
import json
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from experiments.speedrun import run, training
from neptune_jax.devices import startup
from neptune_jax.experiment import Experiment

RESULTS = Path(__file__).parent / 'results/cpu90.jsonl'


class Network(torch.nn.Module):
    """net.Network with one convolution a block and no pooling before the last layer."""

    def __init__(self, model, variables):
        super().__init__()
        self.stride = model['stride']
        kernel = torch.tensor(np.array(variables['whitening']['kernel']))
        size = round(len(kernel) ** 0.5)
        self.register_buffer('kernel', kernel.T.reshape(-1, 1, size, size).contiguous())
        self.whitening_bias = _parameter(variables['whitening']['bias'])
        blocks = [variables[f'block{i}'] for i in range(len(model['widths']))]
        self.convolutions = torch.nn.ParameterList(
            _parameter(block['Conv_0']['kernel'], (3, 2, 0, 1)) for block in blocks
        )
        self.norms = torch.nn.ModuleList(
            torch.nn.BatchNorm2d(width, momentum=0.6) for width in model['widths']
        )
        for norm in self.norms:
            norm.weight.requires_grad_(False)
        self.head = _parameter(variables['head']['kernel'], (1, 0))

    def forward(self, x):
        x = functional.conv2d(x, self.kernel, self.whitening_bias, self.stride)
        x = functional.gelu(x, approximate='tanh')
        for kernel, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(functional.max_pool2d(functional.conv2d(x, kernel, padding='same'), 2))
            x = functional.gelu(x, approximate='tanh')
        x = x.permute(0, 2, 3, 1).flatten(1)
        return functional.linear(x, self.head) * x.shape[-1] ** -0.5


def _parameter(array, axes=None):
    return torch.nn.Parameter(torch.tensor(np.transpose(array, axes)).contiguous())


class Muon(torch.optim.Optimizer):
    """Muon as in optimizer.py: kernels as matrices of one row a feature, of norm sqrt(features)."""

    def __init__(self, params, beta=0.6):
        super().__init__(params, {'lr': 0.0})
        self.beta, self.count = beta, 0

    @torch.no_grad()
    def step(self):
        self.count += 1
        beta, count = self.beta, self.count
        for group in self.param_groups:
            for param in group['params']:
                mean = self.state[param].setdefault('mean', torch.zeros_like(param))
                mean.lerp_(param.grad, 1 - beta)
                ahead = beta * mean / (1 - beta ** (count + 1))
                ahead += (1 - beta) * param.grad / (1 - beta**count)
                direction = orthogonalize(ahead.flatten(1)).reshape(param.shape)
                param.mul_(len(param) ** 0.5 / param.norm()).sub_(direction, alpha=group['lr'])


def orthogonalize(x):
    """Three Newton-Schulz iterations (Jordan et al., 2024)."""
    x = x / (x.norm() + 1e-8)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(3):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


class Trainer:
    """Trains and evaluates as training.Runner does."""

    def __init__(self, experiment: Experiment, runner: training.Runner):
        self._config, self._runner = experiment.config, runner
        self._whitening_steps = min(3 * experiment.steps_per_epoch, runner.steps)
        dataset = experiment.dataset
        images = torch.tensor(np.array(dataset.images)).permute(0, 3, 1, 2).contiguous()
        self._images, self._labels = images, torch.tensor(dataset.labels.astype(np.int64))
        self._shift = float(dataset.standardizer.shift[0])
        self._scale = float(dataset.standardizer.scale[0])
        self._test = torch.tensor(dataset.splits['test'])

    def __call__(self, seed: int) -> tuple[float, float]:
        """Returns the test accuracy and the seconds it took."""
        variables = self._runner.init([seed]).params
        began = time.perf_counter()
        network = self.train(seed, variables).eval()
        with torch.no_grad():
            correct = sum(
                (network(self._pixels(rows)).argmax(1) == self._labels[rows]).sum().item()
                for rows in self._test.split(self._config.eval.batch_size)
            )
        return correct / len(self._test), time.perf_counter() - began

    def train(self, seed: int, variables: dict) -> Network:
        """Returns the network after the last step."""
        options, steps = self._config.optim.options, self._runner.steps
        network = Network(self._config.model, variables)
        muon = Muon(network.convolutions.parameters())
        biases = [norm.bias for norm in network.norms]
        groups = [
            {'params': params, 'lr': 0.0, 'weight_decay': options.weight_decay / rate}
            for rate, params in (
                (options.head_rate, [network.head]),
                (options.bias_rate, biases),
                (options.bias_rate, [network.whitening_bias]),
            )
        ]
        sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
        for step, rows in enumerate(torch.tensor(self._runner.order([seed]))):
            share = float(np.interp(step, [0, 0.2 * steps, steps], [0.2, 1, 0]))
            muon.param_groups[0]['lr'] = options.kernel_rate * share
            sgd.param_groups[0]['lr'] = options.head_rate * share
            sgd.param_groups[1]['lr'] = options.bias_rate * share
            left = max(1 - step / self._whitening_steps, 0)
            sgd.param_groups[2]['lr'] = options.bias_rate * left
            loss = functional.cross_entropy(
                network(self._pixels(rows)),
                self._labels[rows],
                label_smoothing=self._config.loss.label_smoothing,
            )
            loss.backward()
            for chain in (muon, sgd):
                chain.step()
                chain.zero_grad()
        return network

    def _pixels(self, rows):
        return (self._images[rows] / 255 - self._shift) / self._scale


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--data_name', default='fashion_mnist')
    parser.add_argument('--data_dir', default='', help='where tfds keeps its data')
    args = parser.parse_args()
    startup.prepare()
    experiment = run.create('cpu90', args.data_name, args.data_dir)
    runner = training.Runner(experiment)
    trainer = Trainer(experiment, runner)
    environment = run.hardware_and_versions()
    environment['versions'] |= {'torch': metadata.version('torch')}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    compiling = {'jax': round(runner.compile_seconds, 2), 'torch': 0.0}
    with args.out.open('w') as file:
        for seed in range(args.seeds):  # nothing to warm up: ours is compiled, PyTorch eager
            (accuracy,), seconds = runner([seed])
            rounds = {'jax': (float(accuracy), seconds), 'torch': trainer(seed)}
            for framework, (accuracy, seconds) in rounds.items():
                record = {
                    'rung': 'cpu90',
                    'framework': framework,
                    'seed': seed,
                    'accuracy': accuracy,
                    'seconds': round(seconds, 3),
                    'compile_seconds': compiling[framework],
                    **environment,
                }
                print(f'{framework}, seed {seed}: {accuracy:.4f} in {seconds:.2f} s')
                file.write(json.dumps(record) + '\n')
                file.flush()


if __name__ == '__main__':
    main()
