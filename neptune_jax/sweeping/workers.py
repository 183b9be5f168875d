"""Workers: processes that train, each with its share of the cores and GPUs of this machine."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from neptune_jax.errors import PREEMPTED_STATUS, UserError
from neptune_jax.sweeping import launch, space
from neptune_jax.sweeping.trials import Claim, Trial

LOG = 'trial.log'
_TAIL = 8192  # bytes of a log that are looked at
_USER_ERROR_STATUS = 2
_GPU_FOLDER = Path('/proc/driver/nvidia/gpus')
_MEMORY_FRACTION = 0.9  # of a GPU that several workers share


class Share(NamedTuple):
    """What of the machine a worker uses."""

    cores: tuple[int, ...]  # (): all
    environ: dict[str, str]  # variables that its processes get
    gpus: int  # how many


def default_count() -> int:
    """Returns how many workers train at a time: one a GPU, or one (docs/sweeps.md says why)."""
    return max(1, len(_gpus(os.environ)))


def shares(count: int, environ: Mapping[str, str]) -> list[Share]:
    """Divides the cores and the GPUs that this process may use among workers.

    Args:
        count: how many workers.
        environ: the environment of their processes.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    gpus = _gpus(environ)
    found = []
    for number in range(count):
        own = {}
        own_gpus = _part(gpus, number, count)
        if gpus and count > 1:
            own['CUDA_VISIBLE_DEVICES'] = ','.join(own_gpus)
            together = -(-count // len(gpus))
            if together > 1 and 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in environ:
                fraction = f'{_MEMORY_FRACTION / together:.2f}'
                own['XLA_PYTHON_CLIENT_MEM_FRACTION'] = fraction
        own_cores = tuple(_part(cores, number, count)) if count > 1 else ()
        found.append(Share(own_cores, own, len(own_gpus)))
    return found


def _part(items, number, count):
    if not items:
        return []
    if count > len(items):
        return [items[number % len(items)]]
    return items[len(items) * number // count : len(items) * (number + 1) // count]


def _gpus(environ):
    """Returns the names of the GPUs that JAX may use, as CUDA_VISIBLE_DEVICES has them."""
    if environ.get('JAX_PLATFORMS', 'cuda').split(',')[0] not in ('cuda', 'gpu', ''):
        return []
    visible = environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:
        return [name for name in visible.split(',') if name.strip() not in ('', '-1')]
    with contextlib.suppress(OSError):
        return [str(number) for number in range(len(list(_GPU_FOLDER.iterdir())))]
    return []


class Command(NamedTuple):
    """What all trainings of a sweep share."""

    config_file: str  # the value of --config
    config_arguments: list[str]  # the fields that the command line sets
    environ: Mapping[str, str]
    seed: int = 0  # of the config

    def of(self, trials: Sequence[Trial]) -> list[str]:
        """Returns the command that trains a trial, as a person may repeat it."""
        (trial,) = trials
        return [*self._start('main', trial.overrides), f'--workdir={trial.directory}']

    def together(self, trials: Sequence[Trial], unit: Sequence[Trial]) -> list[str]:
        """Returns the command that trains some trials of a unit in one program.

        The others have their places in it, so that it is the program of the whole unit.
        """
        fields = {name: value for name, value in unit[0].overrides.items() if name != 'seed'}
        runs = [
            f'--run={trial.overrides.get("seed", self.seed)}:'
            + (str(trial.directory) if trial in trials else '')
            for trial in unit
        ]
        return [*self._start('together', fields), *runs]

    def _start(self, door, fields):
        start = [sys.executable, '-m', f'neptune_jax.{door}', f'--config={self.config_file}']
        arguments = [space.argument(name, value) for name, value in fields.items()]
        return [*start, *self.config_arguments, *arguments]


class Worker:
    """A process that trains a unit: one trial, or several that one program trains together.

    It holds the claims of the trials too. So they end when the process ends, also if the sweep is
    killed before.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        claims: Sequence[Claim],
        command: Command,
        share: Share,
        unit: Sequence[Trial] = (),
    ) -> None:
        """Starts the process.

        Args:
            trials: what it trains.
            claims: of the trials.
            command: what the trainings of the sweep share.
            share: of the machine.
            unit: if one program trains them together, all trials that have a place in it.

        Raises:
            UserError: the process cannot be started.
        """
        self.trials = list(trials)
        self._claims = list(claims)
        self._steps = {trial.name: trial.last_step for trial in trials}
        arguments = command.together(trials, unit) if len(unit) > 1 else command.of(trials)
        cores = ','.join(map(str, share.cores)) or '-'
        start = [sys.executable, '-I', launch.__file__, str(os.getpid()), cores]
        try:
            with self.trials[0].path(LOG).open('ab') as log:
                self._process = subprocess.Popen(
                    [*start, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**command.environ, **share.environ},
                    pass_fds=[claim.descriptor for claim in claims],
                    process_group=0,  # Ctrl-C reaches the sweep alone, which passes it on once
                )
        except OSError as error:
            raise UserError(f'no training can be started: {error}') from error

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, number: int) -> None:
        """Sends a signal to the process, if it has not ended."""
        self._process.send_signal(number)

    def problem(self, trial: Trial) -> str:
        """Returns why a trial has failed, now that the process has ended; '' if it has not.

        A training that was killed or asked to end has not failed if it has got further than before.
        """
        code = self._process.returncode
        if trial.status in ('finished', 'pruned'):
            return ''
        if self.was_ended():
            further = trial.last_step > self._steps[trial.name]
            name = signal.Signals(-code).name if code < 0 else 'a signal'
            return '' if further else f'ended by {name}, with no checkpoint since it was started'
        own = trial.summary.get('error', '') if len(self.trials) > 1 else ''
        # The log of the first trial has all that the process has printed.
        return own or last_line(self.trials[0]) or f'it ended with status {code}'

    def was_ended(self) -> bool:
        """Whether a signal ended the process."""
        return self._process.returncode == PREEMPTED_STATUS or self._process.returncode < 0

    def would_fail_again(self) -> bool:
        """Whether it ended with a message, such as that of a loss that is not finite."""
        return self._process.returncode == _USER_ERROR_STATUS

    def release(self) -> None:
        """Gives up the claims, once the process has ended."""
        for claim in self._claims:
            claim.close()


def last_line(trial: Trial) -> str:
    """Returns the last line that a trial has printed."""
    lines = [line.strip() for line in _tail(trial).splitlines()]
    return next((line for line in reversed(lines) if line), '')


class Progress(NamedTuple):
    """How far a training is."""

    step: int
    total: int
    seconds_left: float


def progress(trial: Trial) -> Progress | None:
    """Returns the Progress that a trial has last printed; None if it has not yet."""
    found = re.findall(r'^step +([\d,]+)/([\d,]+) .* ([\d,]+) s left$', _tail(trial), re.MULTILINE)
    return Progress(*(int(text.replace(',', '')) for text in found[-1])) if found else None


def _tail(trial):
    try:
        with trial.path(LOG).open('rb') as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors='replace')
    except OSError:
        return ''
