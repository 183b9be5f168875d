"""MLflow: the tracking server or the database that $MLFLOW_TRACKING_URI names.

The experiment is that of $MLFLOW_EXPERIMENT_NAME. The config becomes parameters, numbers of the
summary become metrics, all other values tags.
"""

import contextlib
import logging
import os
import warnings

os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')  # it is read when mlflow is imported

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from neptune_jax.errors import UserError

_RUN_ID = 'neptune_jax.run_id'  # the tag by which a run is found again
_AT_ONCE = 1000  # metrics in a request
_LONGEST = 5000  # characters of a value
_STATUSES = {
    'running': 'RUNNING',
    'finished': 'FINISHED',
    'failed': 'FAILED',
    'preempted': 'KILLED',
}


@contextlib.contextmanager
def open_sink(record):
    """Opens the run with the record's id, or makes it."""
    for name in ('mlflow', 'alembic'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter('ignore')  # what the client is built on warns
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_TIMEOUT', '10')  # seconds; it would take 120
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '1')  # instead of 7, ever later
    with _explained():
        client = mlflow.MlflowClient()
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', 'Default')
        experiment = client.get_experiment_by_name(name)
        folder = experiment.experiment_id if experiment else client.create_experiment(name)
        found = client.search_runs([folder], f"tags.`{_RUN_ID}` = '{record.id}'")
        tags = {_RUN_ID: record.id, 'mlflow.note.content': record.description}
        tags |= dict.fromkeys(record.tags, '')
        run = found[0] if found else client.create_run(folder, tags=tags, run_name=record.name)
    yield _MLflow(client, run)


class _MLflow:
    def __init__(self, client, run):
        self._client, self._run_id, self._data = client, run.info.run_id, run.data
        self.address = f'{mlflow.get_tracking_uri()}, run {self._run_id}'

    def has(self, key):
        return any(
            key in names for names in (self._data.metrics, self._data.params, self._data.tags)
        )

    def log(self, key, points):
        with _explained():
            # A point that is there already is not doubled: MLflow's tables hold each once.
            self._log(
                Metric(key, value, round(1000 * time), int(step)) for step, time, value in points
            )

    def _log(self, metrics):
        metrics = list(metrics)
        for start in range(0, len(metrics), _AT_ONCE):
            batch = metrics[start : start + _AT_ONCE]
            self._client.log_batch(self._run_id, metrics=batch, synchronous=True)

    def assign(self, values):
        with _explained():
            for key, value in values.items():
                self._assign(key, value)

    def _assign(self, key, value):
        text = str(value)[:_LONGEST]
        if key.startswith('config/') and self._data.params.setdefault(key, text) == text:
            self._client.log_param(self._run_id, key, text)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if self._data.metrics.get(key) != value:  # or it would have a second point
                self._client.log_metric(self._run_id, key, value)
        else:  # also a field of the config that has changed: a parameter cannot
            self._client.set_tag(self._run_id, key, text)
        if key == 'summary/status':
            self._client.update_run(self._run_id, status=_STATUSES[value])

    def upload(self, key, path):
        with _explained():
            self._client.log_artifact(self._run_id, str(path), os.path.dirname(key))

    def flush(self):
        """Nothing waits: each call has returned when its content had arrived."""


@contextlib.contextmanager
def _explained():
    """Turns what MLflow raises into one line."""
    try:
        yield
    except (MlflowException, OSError) as error:
        text = ' '.join(str(error).split())[:300]
        raise UserError(f'{mlflow.get_tracking_uri()} cannot be used: {text}') from error
