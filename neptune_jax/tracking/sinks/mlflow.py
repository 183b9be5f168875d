"""MLflow: the tracking server or the database that $MLFLOW_TRACKING_URI names.

$MLFLOW_EXPERIMENT_NAME names the experiment. The config becomes parameters; the numbers of the
summary become metrics; all other values become tags.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')  # mlflow reads it when it is imported

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from neptune_jax.errors import UserError
from neptune_jax.tracking.sinks import Point, Record, Sink, Value

_RUN_ID_TAG = 'neptune_jax.run_id'
_METRICS_PER_REQUEST = 1000
_MAX_CHARACTERS = 5000  # of a parameter or a tag
_STATUSES = {
    'running': 'RUNNING',
    'finished': 'FINISHED',
    'failed': 'FAILED',
    'preempted': 'KILLED',
}


@contextlib.contextmanager
def open_sink(record: Record) -> Iterator[Sink]:
    """Opens the run with the record's id; creates it if there is none."""
    for name in ('mlflow', 'alembic'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter('ignore')  # MLflow's dependencies warn, which a user cannot change
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_TIMEOUT', '10')  # seconds; the default is 120
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '1')  # the default of 7 takes minutes
    with _errors_as_one_line():
        client = mlflow.MlflowClient()
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', 'Default')
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        found = client.search_runs([experiment_id], f"tags.`{_RUN_ID_TAG}` = '{record.id}'")
        tags = {_RUN_ID_TAG: record.id, 'mlflow.note.content': record.description}
        tags |= dict.fromkeys(record.tags, '')
        run = (
            found[0] if found else client.create_run(experiment_id, tags=tags, run_name=record.name)
        )
    yield _MLflow(client, run)


class _MLflow:
    def __init__(self, client: mlflow.MlflowClient, run: mlflow.entities.Run) -> None:
        self._client = client
        self._run_id = run.info.run_id
        self._data = run.data  # what the run held when it was opened
        self.address = f'{mlflow.get_tracking_uri()}, run {self._run_id}'

    def has(self, key: str) -> bool:
        return any(
            key in names for names in (self._data.metrics, self._data.params, self._data.tags)
        )

    def log(self, key: str, points: Sequence[Point]) -> None:
        # MLflow stores equal points once, so they may be sent again.
        metrics = [
            Metric(key, value, round(1000 * time), int(step)) for step, time, value in points
        ]
        with _errors_as_one_line():
            for start in range(0, len(metrics), _METRICS_PER_REQUEST):
                batch = metrics[start : start + _METRICS_PER_REQUEST]
                self._client.log_batch(self._run_id, metrics=batch, synchronous=True)

    def assign(self, values: dict[str, Value]) -> None:
        with _errors_as_one_line():
            for key, value in values.items():
                self._assign(key, value)

    def _assign(self, key, value):
        text = str(value)[:_MAX_CHARACTERS]
        # A parameter can never change. If a config field has changed, it becomes a tag.
        if key.startswith('config/') and self._data.params.setdefault(key, text) == text:
            self._client.log_param(self._run_id, key, text)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if self._data.metrics.get(key) != value:  # an equal value would become a second point
                self._client.log_metric(self._run_id, key, value)
        else:
            self._client.set_tag(self._run_id, key, text)
        if key == 'summary/status':
            self._client.update_run(self._run_id, status=_STATUSES[value])

    def upload(self, key: str, path: Path) -> None:
        with _errors_as_one_line():
            self._client.log_artifact(self._run_id, str(path), os.path.dirname(key))

    def flush(self) -> None:
        """Does nothing: the calls above return only when their content has arrived."""


@contextlib.contextmanager
def _errors_as_one_line():
    try:
        yield
    except (MlflowException, OSError) as error:
        text = ' '.join(str(error).split())[:300]
        raise UserError(f'{mlflow.get_tracking_uri()} cannot be used: {text}') from error
