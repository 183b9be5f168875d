"""The process of a contestant: answers the commands that it reads from standard input."""

import importlib
import json
import sys
import time

from experiments.benchmarks.contestants import CONTESTANTS
from neptune_jax.devices import startup


def main():
    name, network, batch_size, folder = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer

    def answer(**fields):
        answers.write(json.dumps(fields) + '\n')
        answers.flush()

    if name.startswith('ours'):
        startup.prepare()  # as our commands do
        if 'bfloat16' in name:
            startup.prepare_bfloat16()
    module, class_name = CONTESTANTS[name]
    module = importlib.import_module(f'experiments.benchmarks.contestants.{module}')
    contestant = getattr(module, class_name)(network, int(batch_size), folder)
    contestant.train(1)
    answer(initial_loss=contestant.loss)
    for line in sys.stdin:
        command, *args = line.split()
        began = time.perf_counter()
        result = getattr(contestant, command)(*map(int, args))
        answer(seconds=time.perf_counter() - began, result=result)


if __name__ == '__main__':
    main()
