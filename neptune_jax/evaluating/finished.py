"""A finished run as an evaluation needs it: its config, its data where they lie now, devices."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from neptune_jax import defaults, terminal
from neptune_jax.data import dataset
from neptune_jax.devices import backend, drivers
from neptune_jax.errors import UserError
from neptune_jax.runs import files, reader

# Fields of the `data` group that say where the data lie, which another machine may know better.
PLACES = ('dir', 'path', 'labels_path', 'archive_dir')


class Recorded(NamedTuple):
    """What a run directory says of a run."""

    workdir: Path
    config: ConfigDict  # with the defaults of fields that are newer than the run
    environment: dict  # environment.json; {} if it is missing

    @property
    def data(self) -> dict[str, Any]:
        """What environment.json says of the data."""
        return self.environment.get('data') or {}


def read(workdir: str | Path, places: Mapping[str, str] | None = None) -> Recorded:
    """Returns what a run directory says of its run.

    Args:
        workdir: the run directory.
        places: values of some fields of PLACES, instead of those of the run.

    Raises:
        UserError: the directory holds no run.
    """
    found = reader.read_run_config(workdir)
    environment = {}
    with contextlib.suppress(OSError, ValueError):  # damaged: nothing is known
        environment = files.read_json(Path(workdir) / 'environment.json')
    fields = {name: field.default for name, field in defaults.FIELDS.items()}
    fields |= files.flatten(found, '.')
    fields |= {f'data.{name}': value for name, value in (places or {}).items()}
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    config = ConfigDict(unflatten_dict(fields, sep='.'))
    return Recorded(Path(workdir), config, environment)


def load_data(run: Recorded) -> dataset.Dataset:
    """Returns the Dataset of a run, which is prepared again if need be.

    Raises:
        UserError: the data are not there, or cannot be used.
    """
    try:
        return dataset.load(run.config.data)
    except UserError as error:
        # The message speaks to somebody who trains.
        message = re.sub(rf'--config\.data\.({"|".join(PLACES)})\b', r'--data_\1', str(error))
        raise UserError(f'the data of {run.workdir}: {message}') from error


def examples_of(run: Recorded, data: dataset.Dataset, split: str) -> Any:
    """Returns the numbers of the examples of a split, int[n].

    Raises:
        UserError: it has none, or other images or classes than the training had.
    """
    examples = data.splits[split]
    if not len(examples):
        raise UserError(f'the data of {run.workdir} have no {split} split')
    there = run.data.get('sha256', {}).get(split)
    classes = run.data.get('classes', list(data.class_names))
    if there is None:
        terminal.line(
            f'note     {run.workdir} does not say which images its {split} split had; they may '
            'have been others'
        )
    elif there != data.fingerprint[split] or classes != list(data.class_names):
        raise UserError(
            f'the {split} split has other images here than {run.workdir} had (sha256 '
            f'{data.fingerprint[split][:12]}... here, {there[:12]}... there); put the data back as '
            'they were, or say where they are: --data_path, --data_dir; other images are '
            'evaluated with --data=image_folder:PATH'
        )
    return examples


def create_parallel(run: Recorded, batch_size: int) -> drivers.Parallel:
    """Returns the driver and the devices of the training, or as many as this machine has.

    Args:
        run: of a finished run.
        batch_size: of the evaluation; the devices share it evenly.
    """
    devices = backend.devices()
    kinds = run.environment.get('devices') or [devices[0].device_kind] * len(devices)
    count = max(n for n in range(1, min(len(kinds), len(devices)) + 1) if batch_size % n == 0)
    if count != len(kinds) or devices[0].device_kind != kinds[0]:
        terminal.line(
            f'note     {run.workdir} used {len(kinds)} x {kinds[0]}; here it is evaluated on '
            f'{count} x {devices[0].device_kind}, and the last digits may differ'
        )
    config = ConfigDict(run.config.parallel.to_dict())
    config.unlock()
    config.num_devices = count
    config.driver = run.environment.get('driver', config.driver)
    return drivers.create(config, deterministic=run.config.train.deterministic)
