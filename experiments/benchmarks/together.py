"""How many seeds an hour one program trains (`--together`), against one after another.

    python -m experiments.benchmarks.together

A step of n seeds, batch 128 on Fashion-MNIST, takes turns with n steps of one seed, in both forms:
computations side by side, as on a CPU, and with another axis (vmap), as on GPU and TPU. Start and
evaluation are left out: a group starts once, and evaluates its runs one by one.
"""

import argparse
import json
import os
import time
from pathlib import Path

import jax
import numpy as np

from configs import cnn, simple_net
from neptune_jax import experiment as experiments
from neptune_jax import models
from neptune_jax.data import feed as feeds
from neptune_jax.runs import environment
from neptune_jax.training import compiled

RESULTS = Path(__file__).parent / 'results/together.jsonl'
FORMS = {'side by side': False, 'vmap': True}


def mlp():
    """Returns the config of a dense layer of 256 and the output layer."""
    config = simple_net.get_config()
    config.model.features = ()
    return config


NETWORKS = {'mlp': mlp, 'simple_net': simple_net.get_config, 'cnn': cnn.get_config}


def measure(name: str, count: int, rounds: int, data: str, data_dir: str):
    """Yields a record for each form: how many times the seeds an hour `count` seeds reach."""
    created = []
    for seed in range(count):
        config = NETWORKS[name]()
        config.data.name, config.parallel.num_devices, config.seed = data, 1, seed
        config.data.dir = data_dir
        with config.unlocked():
            config.model = models.complete_fields(config.model)
        created.append(experiments.create(config, created[0].dataset if created else None))
    first = created[0]
    feed = feeds.create(first.dataset, first.parallel)
    item = next(feed.batches(first.order, 0, 1))
    items = first.parallel.shard(np.stack([each.order[0] for each in created]))
    step = compiled.compile_train_step(first, feed)
    state = experiments.init_state(first)

    def alone():
        nonlocal state
        for _ in range(count):
            state, _ = step(state, feed.data, item)
        jax.block_until_ready(state)

    for form, vmapped in FORMS.items():
        began = time.perf_counter()
        steps = compiled.compile_steps_together(created, feed, vmapped=vmapped)
        compile_seconds = time.perf_counter() - began
        states = [experiments.init_state(each) for each in created]

        def together(steps=steps):
            nonlocal states
            states, _ = steps(states, feed.data, items)
            jax.block_until_ready(states)

        times: dict = {alone: [], together: []}
        for number in range(rounds + 1):
            for function, found in times.items():
                began = time.perf_counter()
                function()
                if number:  # the first round warms up
                    found.append(time.perf_counter() - began)
        # The shortest times are those that other programs disturb least.
        one, many = (1000 * min(found) for found in times.values())
        yield {
            'form': form,
            'milliseconds_alone': round(one / count, 3),
            'milliseconds_together': round(many, 3),
            'gain': round(one / many, 2),
            'compile_seconds': round(compile_seconds, 1),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines, which are added')
    parser.add_argument('--networks', default=','.join(NETWORKS))
    parser.add_argument('--counts', default='1,4,8')
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--data', default='fashion_mnist')
    parser.add_argument('--data_dir', default='')
    args = parser.parse_args()
    for name in args.networks.split(','):
        for count in map(int, args.counts.split(',')):
            for found in measure(name, count, args.rounds, args.data, args.data_dir):
                record = {'benchmark': 'together', 'network': name, 'seeds': count, **found}
                record |= {'load': round(os.getloadavg()[0], 1), **environment.machine()}
                record |= {'jax': jax.__version__, 'device': jax.devices()[0].device_kind}
                print(record, flush=True)
                with args.out.open('a') as file:
                    file.write(json.dumps(record) + '\n')


if __name__ == '__main__':
    main()
