"""By which variables of the environment a process knows that it is one of several."""

import pytest

from neptune_jax.devices import processes

# As the launchers' manuals spell them: srun(1), mpirun(1) of Open MPI, jax.distributed, Cloud TPU.
LAUNCHERS = {
    'SLURM_STEP_NUM_TASKS': '2',
    'OMPI_COMM_WORLD_SIZE': '2',
    'JAX_NUM_PROCESSES': '2',
    'TPU_WORKER_HOSTNAMES': '10.0.0.2,10.0.0.3',
}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize('name', LAUNCHERS)
def test_each_launcher_is_recognised(monkeypatch, name):
    assert not processes._is_one_of_several()
    monkeypatch.setenv(name, LAUNCHERS[name])
    assert processes._is_one_of_several()


@pytest.mark.parametrize('name', LAUNCHERS)
def test_a_launcher_of_one_process_changes_nothing(monkeypatch, name):
    monkeypatch.setenv(name, LAUNCHERS[name].split(',')[0].replace('2', '1'))
    assert not processes._is_one_of_several()
