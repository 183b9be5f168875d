"""Trains as two processes of two devices each, and as one of four; says how far apart they end.

    make multihost

Before that, two processes check that one of them may come late to a collective.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from neptune_jax.runs import reader
from neptune_jax.testing import xla

ROOT = Path(__file__).parents[2]
STEPS = 20  # after more, Adam and ReLU magnify differences in rounding
FLAGS = (
    '--config=configs/cnn.py',
    '--config.data.name=fashion_mnist_mini',
    '--config.model.features=4,8',
    '--config.model.norm=batch',
    '--config.model.dropout=0.2',
    '--config.augment.flip=random',
    '--config.augment.mixup=0.2',
    f'--config.train.steps={STEPS}',
    '--config.train.batch_size=64',
    '--config.log.every=10 steps',
)
# Process 1 is 40 seconds late, 10 more than gloo waits for a first collective.
LATE = """
import time, jax, numpy as np
from neptune_jax.devices import processes
with processes.joined(False):
    time.sleep(40 * jax.process_index())
    numbers = np.arange(2.0) + 2 * jax.process_index()
    mean = jax.pmap(lambda x: jax.lax.pmean(x, 'device'), 'device')(numbers)
    print(processes.broadcast(np.array(7 - jax.process_index())), mean.addressable_data(0))
"""


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def addresses(port: int, number: int, processes: int) -> dict[str, str]:
    """The environment by which a person tells a process which one it is."""
    return {
        'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
        'JAX_NUM_PROCESSES': str(processes),
        'JAX_PROCESS_ID': str(number),
    }


def slurm(port: int, number: int, processes: int) -> dict[str, str]:
    """The environment by which `srun` does."""
    return {
        'SLURM_JOB_ID': str(port),  # JAX derives its own port from it
        'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_STEP_NUM_TASKS': str(processes),
        'SLURM_NTASKS': str(processes),
        'SLURM_PROCID': str(number),
        'SLURM_LOCALID': str(number),
    }


def open_mpi(port: int, number: int, processes: int) -> dict[str, str]:
    """The environment by which `mpirun` of Open MPI 4 does."""
    return {
        'OMPI_MCA_orte_hnp_uri': f'{port << 12}.0;tcp://127.0.0.1:{port}',  # also a number of a job
        'OMPI_VERSION': '4.1.4',
        'OMPI_COMM_WORLD_SIZE': str(processes),
        'OMPI_COMM_WORLD_RANK': str(number),
        'OMPI_COMM_WORLD_LOCAL_RANK': str(number),
    }


def start(
    workdir: str | Path,
    *flags: str,
    processes: int = 2,
    devices: int = 2,
    launcher: Callable = addresses,
    flags_of_process_1: tuple[str, ...] = (),
) -> list[subprocess.Popen]:
    """Starts the processes of one training on this machine; returns them."""
    command = ['-m', 'neptune_jax.main', *FLAGS, *flags, f'--workdir={workdir}']
    commands = [command] * processes
    if flags_of_process_1:
        commands[1] = [*command, *flags_of_process_1]
    return start_commands(commands, devices, launcher)


def start_commands(
    commands: list[list[str]], devices: int = 2, launcher: Callable = addresses
) -> list[subprocess.Popen]:
    """Starts one Python process with each list of arguments; returns the processes."""
    port, started = free_port(), []
    for number, command in enumerate(commands):
        env = os.environ | {'XLA_FLAGS': xla.flags(devices), 'JAX_PLATFORMS': 'cpu'}
        if len(commands) > 1:
            env |= launcher(port, number, len(commands))
        started.append(
            subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Waits for the processes; returns (status, stdout, stderr) of each."""
    outputs = [process.communicate(timeout=300) for process in processes]
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs, strict=True)
    ]


def final(workdir: str | Path) -> tuple[dict, list[np.ndarray]]:
    """The summary of a run, and the arrays of its last checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:  # with nothing of ours
        state = checkpointer.restore(Path(workdir).absolute() / f'checkpoints/{STEPS}/state')
    return reader.read_summary(workdir), [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def exit_if_failed(results):
    if any(status for status, _, _ in results):
        sys.exit('\n'.join(f'exit status {status}\n{errors}' for status, _, errors in results))


def main():
    results = finish(start_commands([['-c', LATE]] * 2))
    exit_if_failed(results)
    assert results[0][1].endswith('7 [1.5]\n'), results
    print('one of two processes may be 40 seconds late')
    with tempfile.TemporaryDirectory() as folder:
        ends = []
        for processes, devices in ((2, 2), (1, 4)):
            workdir = f'{folder}/{processes}'
            flags = (f'--config.data.dir={folder}/data',)
            results = finish(start(workdir, *flags, processes=processes, devices=devices))
            print(results[0][1])
            exit_if_failed(results)
            ends.append(final(workdir))
    (two, arrays), (one, others) = ends
    pairs = list(zip(arrays, others, strict=True))
    apart = max(np.abs(a.astype(float) - b).max() for a, b in pairs)
    print(
        f'\ntest accuracy: two processes {two["test"]["accuracy"]}, one {one["test"]["accuracy"]}; '
        f'largest difference in {len(pairs)} arrays of the state: {apart:.1e}'
    )
    if two['test']['accuracy'] != one['test']['accuracy'] or apart > 1e-6:
        sys.exit('they differ')


if __name__ == '__main__':
    main()
