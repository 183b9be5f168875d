"""Trainings that end in the middle."""

import pytest

from neptune_jax.runs import checkpoints
from neptune_jax.training import loop


@pytest.fixture
def train_until(monkeypatch):
    """Trains until a checkpoint is saved, that of `step` or any, as if the power were cut then."""

    def train_until(config, workdir, step=None):
        save = checkpoints.Checkpoints.save

        def save_and_die(self, at, *args):
            save(self, at, *args)
            if step in (None, at):
                raise RuntimeError('power cut')

        with monkeypatch.context() as patched:
            patched.setattr(checkpoints.Checkpoints, 'save', save_and_die)
            with pytest.raises(RuntimeError, match='power cut'):
                loop.train_and_evaluate(config, workdir)

    return train_until
