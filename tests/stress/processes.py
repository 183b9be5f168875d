"""Trains as two processes of two devices each, and as one of four; says how far apart they end.

make multihost
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from neptune_jax.runs import reader
from neptune_jax.testing import xla

ROOT = Path(__file__).parents[2]
STEPS = 20  # after more, Adam and ReLU magnify what is rounded otherwise
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


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def addresses(port, number, processes):
    """The environment by which a person tells a process which one it is."""
    return {
        'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
        'JAX_NUM_PROCESSES': str(processes),
        'JAX_PROCESS_ID': str(number),
    }


def slurm(port, number, processes):
    """The environment by which `srun` does."""
    return {
        'SLURM_JOB_ID': str(port),  # from which JAX derives the port
        'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_STEP_NUM_TASKS': str(processes),
        'SLURM_NTASKS': str(processes),
        'SLURM_PROCID': str(number),
        'SLURM_LOCALID': str(number),
    }


def start(workdir, *flags, processes=2, devices=2, launcher=addresses):
    """Starts the processes of one training on this machine; returns them."""
    port, started = free_port(), []
    for number in range(processes):
        env = os.environ | {
            'XLA_FLAGS': xla.flags(devices),
            'JAX_PLATFORMS': 'cpu',
        }
        if processes > 1:
            env |= launcher(port, number, processes)
        main = [sys.executable, '-m', 'neptune_jax.main', *FLAGS, *flags]
        started.append(
            subprocess.Popen(
                [*main, f'--workdir={workdir}'],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(processes):
    """Waits for the processes; returns (status, stdout, stderr) of each."""
    outputs = [process.communicate(timeout=300) for process in processes]
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs, strict=True)
    ]


def final(workdir):
    """The summary of a run, and the arrays of its last checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:  # with nothing of ours
        state = checkpointer.restore(Path(workdir).absolute() / f'checkpoints/{STEPS}/state')
    return reader.read_summary(workdir), [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def main():
    with tempfile.TemporaryDirectory() as folder:
        ends = []
        for processes, devices in ((2, 2), (1, 4)):
            workdir = f'{folder}/{processes}'
            flags = (f'--config.data.dir={folder}/data',)
            results = finish(start(workdir, *flags, processes=processes, devices=devices))
            print(results[0][1])
            if any(status for status, _, _ in results):
                sys.exit('\n'.join(f'exit status {status}\n{err}' for status, _, err in results))
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
