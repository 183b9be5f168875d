"""The model of the finished run, images, and a server that tests share."""

import numpy as np
import pytest

from neptune_jax.inference.predictor import Predictor
from tests.serving.running import run_server


@pytest.fixture(scope='session')
def predictor(finished_run):
    return Predictor.from_run(finished_run)


@pytest.fixture(scope='session')
def pictures():
    """Twelve images of the network's size, uint8[12, 28, 28, 1]."""
    return np.random.default_rng(0).integers(256, size=(12, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope='session')
def server(predictor):
    """A server of one model with the usual limits. Tests share it."""
    with run_server({'run': predictor}) as running:
        yield running
