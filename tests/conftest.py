"""Eight virtual CPU devices, strict promotion, and a data folder of the tests' own."""

import os
import signal

from neptune_jax.testing import xla

# Before jax is imported anywhere.
os.environ['XLA_FLAGS'] = xla.flags(8)
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import pytest
from ml_collections import ConfigDict

from neptune_jax import defaults
from tests import browser

# A shell lets what it starts in the background ignore Ctrl-C, which tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """Keeps compiled programs for other tests, and for the processes that tests start."""
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'compiled')
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
    jax.config.update('jax_compilation_cache_dir', str(folder / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


@pytest.fixture(scope='session', autouse=True)
def no_tracker():
    """Removes the tracker settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith(('NEPTUNE_', 'MLFLOW_'))]:
        del os.environ[name]


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    """A folder for prepared data sets, shared by all tests."""
    return tmp_path_factory.mktemp('data')


@pytest.fixture
def config(data_dir):
    return small_config(data_dir)


def small_config(data_dir):
    """The default config on the small data set, with a network and a run that take a moment."""
    config = defaults.get_config()
    config.data.name = 'fashion_mnist_mini'
    config.data.dir = str(data_dir)
    fields = {'features': (4, 8), 'hidden': (), 'activation': 'leaky_relu', 'dropout': 0.0}
    config.model = ConfigDict({'name': 'cnn'} | fields)
    config.train.batch_size = 64
    config.parallel.num_devices = 2  # eight would take turns on few cores
    config.train.steps = 6
    config.eval.batch_size = 200
    config.eval.every = '3 steps'
    config.checkpoint.every = '3 steps'
    config.log.every = '2 steps'
    return config


@pytest.fixture(scope='session')
def finished_run(data_dir, tmp_path_factory):
    """The directory of a finished run, of a small network with some skill. Nobody writes into it.

    One device evaluates it in batches of 200.
    """
    from neptune_jax.training import loop

    config = small_config(data_dir)
    config.parallel.num_devices = 1
    config.train.steps = 60
    config.eval.every = config.checkpoint.every = '30 steps'
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    with jax.numpy_dtype_promotion('standard'):
        loop.train_and_evaluate(config, workdir)
    return workdir


@pytest.fixture(scope='module')
def running_page(tmp_path_factory):
    """A page in a headless Chromium (browser.Page)."""
    with browser.page(tmp_path_factory.mktemp('profile')) as page:
        yield page


@pytest.fixture
def quiet_page(running_page):
    """A page whose console has nothing to say, before and after."""
    running_page.console.clear()
    running_page.addresses.clear()
    yield running_page
    assert running_page.console == []


@pytest.fixture
def standard_promotion():
    """For whatever trains: optax's Adam raises a float to an int32 power."""
    with jax.numpy_dtype_promotion('standard'):
        yield


@pytest.fixture
def read_state():
    """Reads a checkpoint of a run with nothing but the run's config."""
    from neptune_jax import experiment as experiments
    from neptune_jax.runs import checkpoints

    def read_state(config, workdir, step):
        experiment = experiments.create(config)
        with checkpoints.open_checkpoints(workdir / 'checkpoints', keep=9) as opened:
            restored = opened.restore(step, experiment.abstract_state)
        return restored.state, restored.data, experiment

    return read_state
