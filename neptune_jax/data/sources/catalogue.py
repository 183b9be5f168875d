"""Image data sets of the tfds catalogue, read from the array_record files that tfds prepared."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from neptune_jax.data.sources import images, raw, white, workers
from neptune_jax.data.sources.arrays import shape_of_array
from neptune_jax.data.sources.builder import Preparation
from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError

# Names of splits in the catalogue and here. Other splits are not used.
SPLITS = {'train': 'train', 'validation': 'val', 'val': 'val', 'test': 'test'}


def preparation(config: ConfigDict, data_dir: Path) -> Preparation:
    """Returns the Preparation of the tfds data set that `data.name` = 'tfds:NAME' names.

    Args:
        config: the `data` group.
        data_dir: the folder of prepared data, ours and those of tfds.

    Raises:
        UserError: an unknown data set, one that TensorFlow must prepare first, one in another
            format than array_record, or one without `train`, `image` or `label`.
    """
    builder = _prepared(config.name.removeprefix('tfds:'), data_dir)
    _records_of.cache_clear()  # the data set may have been prepared again
    features, sizes = builder.info.features, builder.info.splits
    if not (
        'train' in sizes
        and 'image' in features
        and 'label' in features
        and isinstance(features['label'], tfds.features.ClassLabel)
    ):
        raise UserError(
            f'{config.name} has the features {", ".join(sorted(features))} and the splits '
            f'{", ".join(sizes)}; needed are image, label (of one class) and train'
        )
    names = {SPLITS[split]: split for split in sizes if split in SPLITS}
    folder = Path(builder.data_path)

    def name_of(split, number):
        return f'{names[split]}[{number}]'

    return raw.preparation(
        config,
        data_dir,
        name=f'tfds_{builder.name}',
        files=sorted(folder.iterdir()),
        settings=[builder.info.full_name],
        read_from=builder.info.full_name,
        read=functools.partial(_read, config.name, builder.info, folder, names, name_of),
        name_of=name_of,
    )


def load_record(
    item: tuple[str, str, int], conversion: Conversion
) -> tuple[images.Converted, int | None]:
    """Returns the Converted of the image of a (folder, split, number), and its label."""
    folder, split, number = item
    example = _record(folder, split, number)
    return images.convert(example['image'], conversion), _label(example)


def _label_of_record(item):
    return _label(_record(*item))


def _label(example):
    label = int(example['label'])
    return None if label < 0 else label  # tfds has -1 for unknown labels


def _read(where, info, folder, names, name_of, conversion):
    items = {
        split: [(str(folder), name, i) for i in range(info.splits[name].num_examples)]
        for split, name in names.items()
    }
    found: white.Found = {}
    if info.features['image'].np_dtype not in (np.uint8, np.bool_):
        found = {
            split: white.values_of_images(enumerate(workers.map_all(_range_of_record, own)))
            for split, own in items.items()
        }
    conversion, notes = white.resolve(where, conversion, found, name_of)
    return raw.RawImages(
        class_names=info.features['label'].names,
        splits=items,
        load=load_record,
        conversion=raw.resolve(conversion, items['train'], _shape_of_record, where),
        label_of=_label_of_record,
        notes=notes,
    )


def _range_of_record(item):
    return white.range_of_array(_record(*item)['image'])


def _shape_of_record(item, conversion):
    return shape_of_array(_record(*item)['image'], conversion)


def _prepared(name, data_dir):
    """Returns the tfds builder of a name, whose data set is prepared."""
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            # Nearly all data sets need TensorFlow for it, and some download for hours before they
            # say so.
            if importlib.util.find_spec('tensorflow') is None:
                raise ModuleNotFoundError(name='tensorflow')
            builder.download_and_prepare(file_format='array_record')
        builder.as_data_source()
        return builder
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f'tfds:{name}: neither tfds nor {data_dir} has such a data set; see '
            'https://www.tensorflow.org/datasets/catalog'
        ) from error
    except ImportError as error:
        module = (error.name or 'tensorflow').partition('.')[0]
        raise UserError(
            f'tfds:{name} is not prepared in {data_dir}, and to prepare it takes {module}, once: '
            f'pip install {module}, then start the same command again'
        ) from error
    except NotImplementedError as error:
        raise UserError(
            f'tfds:{name} in {builder.data_path} is not in the format array_record; prepare it '
            "with file_format='array_record' in another folder, and set --config.data.dir to that"
        ) from error
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'tfds:{name}: {" ".join(str(error).split())[:300]}') from error


def _record(folder, split, number):
    """Returns the number-th record of a split as a dict.

    Raises:
        UserError: it is damaged.
    """
    try:
        return _records_of(folder, split)[number]
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f'{folder}, record {number} of {split} cannot be read '
            f'({" ".join(str(error).split())[:200]}); prepare the data set again with tfds'
        ) from error


@functools.lru_cache(maxsize=8)
def _records_of(folder, split):
    return tfds.builder_from_directory(folder).as_data_source(split)
