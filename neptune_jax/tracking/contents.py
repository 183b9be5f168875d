"""What a run directory holds for a tracker. Nothing else of the directory leaves the machine."""

import uuid
from collections.abc import Iterator
from pathlib import Path

from neptune_jax.errors import UserError
from neptune_jax.runs import files, reader
from neptune_jax.tracking.sinks import Record, Value

# Artifacts that are not sent. The data report names files of the user.
_KEPT_HERE = ('data_report.json',)


def read_record(workdir: Path, follow: bool = False) -> Record:
    """Returns what a tracker is told about a run.

    Args:
        workdir: the run directory.
        follow: whether the run is still being written, by this machine.

    Raises:
        UserError: the directory holds no run.
    """
    config = reader.read_config(workdir)
    if not config:
        raise UserError('it holds no run: there is no config.json')
    fields = config.get('neptune', {})
    # The program of an imported run may have set its tags as a value.
    tags = fields.get('tags') or files.read_json(workdir / 'summary.json').get('tags', [])
    return Record(
        workdir=workdir,
        id=_read_id(workdir),
        name=fields.get('name') or workdir.absolute().name,
        description=fields.get('description', ''),
        tags=list(tags),
        project=fields.get('project', ''),
        hardware=follow and fields.get('capture_hardware', False),
        checkpoint=fields.get('upload_checkpoint', False),
    )


def _read_id(workdir):
    """Returns the id of a run, which is drawn when the run is first sent."""
    (workdir / 'sync').mkdir(exist_ok=True)
    with files.locked(workdir / 'sync/id.lock', wait=True):
        path = workdir / 'sync/id'
        if not path.is_file():
            name = workdir.absolute().name[:23]  # the Neptune client drops ids of more than 36
            files.replace(path, f'{name}-{uuid.uuid4().hex[:12]}')
        return path.read_text()


def read_values(workdir: Path) -> dict[str, Value]:
    """Returns the config, the environment and the summary as values by key.

    Numbers that are not finite are floats, except inside lists: there they are strings, as in the
    files of the run.
    """
    contents = {
        'config': reader.read_config(workdir),
        'environment': files.read_json(workdir / 'environment.json'),
        'summary': reader.read_summary(workdir),
    }
    return {
        f'{name}/{key}': files.encode(value) if isinstance(value, list) else value
        for name, content in contents.items()
        for key, value in files.flatten(content).items()
    }


def artifacts(workdir: Path) -> Iterator[tuple[str, Path]]:
    """Yields the key and the path of each file that is sent."""
    if not (workdir / 'artifacts/config.json').exists():  # an imported run may have one of its own
        yield 'artifacts/config.json', workdir / 'config.json'
    for path in sorted((workdir / 'artifacts').rglob('*')):
        if path.is_file() and path.name not in _KEPT_HERE and not path.name.startswith('.'):
            yield path.relative_to(workdir).as_posix(), path
