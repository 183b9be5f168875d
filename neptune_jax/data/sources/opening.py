"""Where images come from: SOURCES has a function `preparation` for each value of `data.name`.

Such a function gets the `data` group and the folder of prepared data. It returns a Preparation,
which says where the prepared data set lies and how to prepare it. `open_source` prepares it, if
that has not been done before, and returns a Source. To add a kind of source, write its function
`preparation` in a new file of this folder and name it in SOURCES.
"""

from pathlib import Path

import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from neptune_jax import terminal
from neptune_jax.data.sources import archives, arrays, catalogue, image_folder, synthetic
from neptune_jax.data.sources.builder import prepare, writable
from neptune_jax.data.sources.cifar import Cifar10, Cifar100
from neptune_jax.data.sources.idx import FashionMnist, FashionMnistMini, Kmnist, Mnist
from neptune_jax.data.sources.source import Source
from neptune_jax.defaults import FIELDS
from neptune_jax.errors import UserError, choose
from neptune_jax.runs.files import check_characters, expand_user

ARCHIVES = {
    'mnist': archives.preparation_of(Mnist),
    'kmnist': archives.preparation_of(Kmnist),
    'fashion_mnist': archives.preparation_of(FashionMnist),
    'fashion_mnist_mini': archives.preparation_of(FashionMnistMini),
    'cifar10': archives.preparation_of(Cifar10),
    'cifar100': archives.preparation_of(Cifar100),
}
SOURCES = ARCHIVES | {
    'image_folder': image_folder.preparation,
    'arrays': arrays.preparation,
    'synthetic': synthetic.preparation,
    'tfds:NAME': catalogue.preparation,
}

# Fields that some sources use, by these sources. If one is set for another source, the config is
# refused: its user would believe that the field counts.
_REFUSED_ELSEWHERE = {
    'archive_dir': ARCHIVES,
    'labels_path': ('arrays',),
    'label_column': ('arrays',),
    'examples': ('synthetic',),
    'classes': ('synthetic',),
}
# The same, but these are only named on screen. Config files for images of one's own set them, and
# such a file can be tried on other images with --config.data.name=fashion_mnist_mini.
_NAMED_ELSEWHERE = {
    'path': ('image_folder', 'arrays'),
    'image_size': ('image_folder', 'arrays', 'tfds:NAME', 'synthetic'),
    'channels': ('image_folder', 'arrays', 'tfds:NAME', 'synthetic'),
    'resize': ('image_folder', 'arrays', 'tfds:NAME'),
    'white': ('image_folder', 'arrays', 'tfds:NAME'),
}


def open_source(config: ConfigDict) -> Source:
    """Returns the Source that the `data` group names. Prepares it if that has not been done before.

    Raises:
        UserError: an unknown data set, data that cannot be fetched or are damaged, a data folder
            that cannot be written, or a field that is set but not used by this source.
    """
    name = 'tfds:NAME' if config.name.startswith('tfds:') else config.name
    preparation_of = choose(SOURCES, name, 'data.name')
    _check_fields(config, name)
    data_dir = Path(
        expand_user(config.dir or tfds.core.constants.get_default_data_dir(), 'data.dir')
    )
    check_characters(data_dir, 'data.dir=')
    try:
        preparation = preparation_of(config, data_dir)
    except OSError as error:
        raise UserError(
            f'data.name={config.name!r} cannot be read: {error}; make it readable, or take it '
            'away, and start again'
        ) from error
    prepare(preparation, data_dir)
    with writable(data_dir):
        return Source.from_directory(preparation.directory, preparation.name_of, preparation.rules)


def _check_fields(config, name):
    """Refuses, or names on screen, fields that are set although the source does not use them."""
    for field in _unused(config, name, _REFUSED_ELSEWHERE):
        raise UserError(
            f'data.{field}={config[field]!r} is not used by data.name={config.name!r}; set '
            f'--config.data.{field}={_default(field)} or choose another data.name'
        )
    unused = _unused(config, name, _NAMED_ELSEWHERE)
    if unused:
        fields = ', '.join(f'data.{field}' for field in unused)
        terminal.line(f'note     data.name={config.name!r} does not use {fields}')


def _unused(config, name, table):
    """Returns the fields of a table that differ from their default but are not used."""
    return [
        field
        for field, sources in table.items()
        if name not in sources and config.get(field, _default(field)) != _default(field)
    ]


def _default(field):
    return FIELDS[f'data.{field}'].default
