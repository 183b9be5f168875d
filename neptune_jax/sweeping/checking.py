"""Checks all configs of a sweep before the first one trains, and prepares their data.

It happens in a process of its own, on a CPU: the process of the sweep must not take the memory of a
GPU, and need not hold a data set for hours.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from ml_collections import ConfigDict

from neptune_jax.errors import UserError

Named = tuple[str, ConfigDict]  # what a message calls a trial, and its config

_SECONDS_TO_END = 20  # of a preparation of data that is interrupted


def check(configs: Sequence[Named], together: int = 1) -> None:
    """Checks configs as far as that goes without training, and prepares their data sets.

    Args:
        configs: the configs.
        together: how many of them that differ in their seeds are trained in one program.

    Raises:
        UserError: a training with one of them would be refused; the message names the trial.
    """
    from neptune_jax import experiment
    from neptune_jax.data import dataset

    loaded: dict[str, Any] = {}
    kinds: dict[str, Named] = {}  # what differs by its seed alone is checked once
    for name, config in configs:
        with _named(name):
            experiment.check(config)
        kinds.setdefault(_without_seed(config), (name, config))
    for name, config in kinds.values():
        with _named(name):
            data = config.data.to_json()
            if data not in loaded:
                loaded[data] = dataset.load(config.data)
            created = experiment.create(config, loaded[data])
            if together > 1:
                experiment.check_together(created)


def _without_seed(config):
    config = config.copy_and_resolve_references()
    config.seed = 0
    return config.to_json()


@contextlib.contextmanager
def _named(name):
    try:
        yield
    except UserError as error:
        raise UserError(f'{name}: {error}') from error


def check_in_process(configs: Sequence[Named], devices: int = 1, together: int = 1) -> None:
    """Does what `check` does, in another process.

    Args:
        configs: as for `check`.
        devices: how many GPUs a worker has; 0 or 1: one.
        together: as for `check`.

    Raises:
        UserError: as from `check`.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, configs, devices, together))
    process.start()
    sender.close()
    try:
        problem = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(
            f'the check of the configs ended with status {process.exitcode}, maybe because memory '
            'is short'
        ) from None
    finally:
        _end(process)
    if problem:
        raise UserError(problem)


def _end(process):
    process.join(1)  # one that has answered ends by itself
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGINT)
        process.join(_SECONDS_TO_END)
    if process.exitcode is None:
        process.kill()
        process.join()


def _run(sender: Connection, configs: Sequence[Named], devices: int, together: int) -> None:
    os.environ['JAX_PLATFORMS'] = 'cpu'  # before JAX is imported
    if devices > 1:
        os.environ['JAX_NUM_CPU_DEVICES'] = str(devices)
    problem = ''
    try:
        check(configs, together)
    except UserError as error:
        problem = str(error)
    except KeyboardInterrupt:
        return
    with contextlib.suppress(BrokenPipeError):
        sender.send(problem)
