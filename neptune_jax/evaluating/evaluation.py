"""An evaluation of a finished run, from the request to the results. Read it from top to bottom."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from neptune_jax import defaults, terminal
from neptune_jax.data import feed as feeds
from neptune_jax.data import given
from neptune_jax.data.dataset import Dataset
from neptune_jax.devices.drivers import Parallel
from neptune_jax.errors import UserError
from neptune_jax.evaluating import comparison, finished, requests, results
from neptune_jax.inference import calibration, evaluator, views
from neptune_jax.inference.predictor import Predictor
from neptune_jax.learning.state import TrainState
from neptune_jax.runs import files, reader


class Examples(NamedTuple):
    """Images to evaluate."""

    data: Dataset | given.GivenImages
    numbers: np.ndarray  # int[n], of the examples in `data`
    name: str  # for files
    what: str  # they are, for people
    source: str  # the data set that they are from, with an absolute path

    @property
    def labels(self) -> np.ndarray:
        """int[n]"""
        return self.data.labels[self.numbers]


class Compiled(NamedTuple):
    """What all evaluations of a run need."""

    predictor: Predictor  # without temperature
    parallel: Parallel
    batch_size: int
    tta: tuple[str, ...]

    def evaluate(self, examples: Examples, temperature: float = 1.0) -> results.Measured:
        """Returns the totals and the outputs of examples."""
        predictor = dataclasses.replace(self.predictor, temperature=temperature)
        variables = predictor.variables
        zero = jnp.zeros((), jnp.int32)
        state = self.parallel.replicate(
            TrainState(zero, variables['params'], variables['batch_stats'], {}, {})
        )
        evaluate = evaluator.compile_evaluate(
            feeds.create(examples.data, self.parallel),
            self.parallel,
            self.parallel.abstract(state),
            logits=self._logits(temperature),
            loss=predictor.loss,
            num_classes=len(predictor.classes),
            batch_size=self.batch_size,
            with_logits=True,
        )
        with terminal.counted(len(examples.numbers), 'images evaluated') as advance:
            return results.Measured(*evaluate(state, examples.numbers, advance))

    def _logits(self, temperature: float) -> Callable:
        if not self.tta:
            return dataclasses.replace(self.predictor, temperature=temperature).logits
        pooled = views.averaged(self.predictor.logits, self.tta, self.predictor.loss)
        return lambda variables, images: pooled(variables, images) / temperature


def run(request: requests.Request) -> dict[str, Any]:
    """Evaluates a finished run or compares it with another. Prints and writes the results.

    Returns:
        The content of metrics.json, or of comparison.json.

    Raises:
        UserError: a mistake that the user can correct.
    """
    fixed = requests.check(request)
    if request.compare:
        found = comparison.compare(request.workdir, request.compare, request.out, request.places)
        results.print_as(request.form, found, comparison.HEADER, comparison.table(found))
        return found
    found = _evaluate(request, fixed)
    results.print_as(request.form, found, results.HEADER, results.table(found))
    return found


def _evaluate(request, fixed):
    """Returns the content of metrics.json. `fixed` is the temperature, if the request has it."""
    run = finished.read(request.workdir, request.places)
    saved = Predictor.from_run(request.workdir, request.checkpoint, request.resize)
    predictor = dataclasses.replace(saved, temperature=1.0, _programs={})
    if request.temperature == 'saved':
        fixed = reader.read_calibration(request.workdir, saved.step).get('temperature')
        if fixed is None:
            raise UserError(
                f'{request.workdir} has no saved temperature of step {saved.step}; fit one with '
                '--temperature=fit --save'
            )

    # ----------------------------------------------------------------------------------- Images
    fits = request.temperature == 'fit'
    own = finished.load_data(run) if fits or not request.data else None
    if request.data:
        examples = _given(request, run, saved)
    else:
        split = request.split or 'test'
        examples = _of_split(run, own, split)
    folder = _folder(request, examples, saved.step)
    if request.save:
        results.writable(Path(request.workdir), 'leave --save away')

    # ------------------------------------------------------------------------------- Evaluation
    parallel = finished.create_parallel(run, run.config.eval.batch_size)
    # All views of a batch are computed at once, so fewer images fit into it.
    views_of_image, devices = views.count(request.tta), parallel.num_devices
    share = max(1, run.config.eval.batch_size // devices // views_of_image)
    batch_size = share * devices
    compiled = Compiled(predictor, parallel, batch_size, request.tta)
    before = fitted = None
    if fits:
        val = _of_split(run, own, 'val')
        measured = compiled.evaluate(val)
        fixed, fitted = _fit(predictor, measured.outputs['logits'], val.labels)
    if fixed is not None:
        before = compiled.evaluate(examples)
    measured = compiled.evaluate(examples, 1.0 if fixed is None else fixed)

    # ---------------------------------------------------------------------------------- Results
    found = {
        'run': str(request.workdir),
        'step': saved.step,
        'images': _describe(request, examples),
        'tta': {'names': list(request.tta), 'views': views_of_image},
        'devices': [device.device_kind for device in parallel.devices],
        **results.summarize(measured, examples.labels, predictor.classes),
    }
    if before:
        found['temperature'] = {
            'value': fixed,
            'from': request.temperature if request.temperature in ('fit', 'saved') else 'flag',
            'before': results.metrics_of(before),
            'fit': fitted,
        }
    results.write(folder, examples, measured, before, found)
    results.show(found, folder)
    if request.save:
        kept = {'temperature': fixed, 'step': saved.step, 'split': 'val', **fitted}
        with results.writing(Path(request.workdir)):
            files.write_json(Path(request.workdir) / 'calibration.json', kept)
        terminal.line(
            f'saved    {Path(request.workdir) / "calibration.json"}: predict, export and serve '
            'divide the logits by this temperature from now on'
        )
    elif saved.temperature != 1 and not request.temperature:
        terminal.line(
            f'note     the saved temperature of the run, {saved.temperature:.4g}, was not used; '
            '--temperature=saved uses it, as predict, export and serve do'
        )
    return found


def _of_split(run, data, split):
    """Returns the Examples of a split of the run's own data."""
    examples = finished.examples_of(run, data, split)
    return Examples(data, examples, split, requests.SPLITS[split], run.config.data.name)


def _given(request, run, predictor):
    """Returns the Examples that --data names."""
    config = ConfigDict(defaults.get_config().data.to_dict())
    kind, _, path = request.data.partition(':')
    source = request.data
    if kind in ('image_folder', 'arrays'):
        if not path:
            raise UserError(f'--data={request.data} needs a path: --data={kind}:PATH')
        config.name, config.path = kind, files.expand_user(path, '--data')
        source = f'{kind}:{Path(config.path).absolute()}'
        config.labels_path = request.places.get('labels_path', '')
        name = f'{kind}_{Path(path).absolute().name}'
        if run.config.data.name == 'arrays' and path.endswith('.csv'):
            config.label_column = run.config.data.label_column
    else:
        config.name, name = request.data, request.data
        config.archive_dir = request.places.get('archive_dir', '')
        if kind == 'tfds':
            config.image_size = tuple(predictor.conversion.size)
            config.channels = predictor.conversion.channels
            config.resize = predictor.conversion.resize
    config.dir = run.config.data.dir
    try:
        images = given.read(
            config,
            [request.split] if request.split else [],
            predictor.classes,
            predictor.conversion,
        )
    except UserError as error:
        message = str(error).replace('--config.data.labels_path', '--data_labels_path')
        raise UserError(f'--data={request.data}: {message}') from error
    if request.split:
        name = f'{name}_{request.split}'
    numbers = np.arange(len(images.labels), dtype=np.int32)
    return Examples(images, numbers, name, 'given', source)


def _fit(predictor, logits, labels):
    """Returns the temperature, and the rest of calibration.json but its step and split."""
    temperature = calibration.fit_temperature(logits, labels, predictor.loss)
    score = functools.partial(calibration.scores, labels=labels, loss=predictor.loss)
    before, after = score(logits), score(logits / np.float32(temperature))
    return temperature, {
        'count': len(labels),
        'ece_before': before['ece'],
        'ece_after': after['ece'],
        'loss_before': before['loss'],
        'loss_after': after['loss'],
    }


def _describe(request, examples):
    """Returns what identifies the images, for metrics.json."""
    if isinstance(examples.data, given.GivenImages):
        return {'data': examples.source, 'split': request.split, **examples.data.report}
    split = examples.name
    return {
        'data': examples.source,
        'split': split,
        'sha256': examples.data.fingerprint[split],
    }


def _folder(request, examples, step):
    """Returns the folder for the results, which can be written. Those of other images stay."""
    if request.out:
        return results.writable(Path(request.out))
    parts = [examples.name]
    if request.checkpoint != 'best':
        parts.append(f'step_{step}')
    if request.tta:
        parts.append('_'.join(['tta', *request.tta]))
    if request.temperature:
        parts.append(f'temperature_{request.temperature}')
    folder = Path(request.workdir) / 'evaluations'
    numbered = ([*parts, *([str(number)] if number > 1 else [])] for number in itertools.count(1))
    folders = (folder / results.file_name('_'.join(each)) for each in numbered)
    return results.writable(next(each for each in folders if results.is_of(each, examples.source)))
