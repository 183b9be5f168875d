"""Any image data set of the tfds catalogue that lies prepared as array_record."""

import functools
import importlib.util
from pathlib import Path

import tensorflow_datasets as tfds

from neptune_jax.data.sources import images
from neptune_jax.data.sources.arrays import size_of_array
from neptune_jax.data.sources.builder import Raw, fingerprint, resolve
from neptune_jax.errors import UserError

# What the catalogue calls a split, and what it is here; other splits are left alone.
SPLITS = {'train': 'train', 'validation': 'val', 'val': 'val', 'test': 'test'}


def catalogue(name, data_dir, conversion):
    """Returns the Raw of the tfds data set `name`, with those of SPLITS that it has.

    Raises:
        UserError: an unknown data set, one that TensorFlow must prepare first, one that is no
            array_record, or one without `train`, `image` or `label`.
    """
    builder = _prepared(name, data_dir)
    _records.cache_clear()  # it may have been prepared anew
    features, sizes = builder.info.features, builder.info.splits
    if not (
        'train' in sizes
        and 'image' in features
        and 'label' in features
        and isinstance(features['label'], tfds.features.ClassLabel)
    ):
        raise UserError(
            f'tfds:{name} has the features {", ".join(sorted(features))} and the splits '
            f'{", ".join(sizes)}; needed are image, label (of one class) and train'
        )
    folder = Path(builder.data_path)
    items = {
        SPLITS[split]: [(str(folder), split, i) for i in range(sizes[split].num_examples)]
        for split in sizes
        if split in SPLITS
    }

    def size_of(item, conversion):
        return size_of_array(_records(*item[:2])[item[2]]['image'], conversion)

    conversion = resolve(conversion, items['train'], size_of, f'tfds:{name}')
    return Raw(
        name=f'tfds_{builder.name}',
        fingerprint=fingerprint(sorted(folder.iterdir()), builder.info.full_name, conversion),
        class_names=features['label'].names,
        splits=items,
        load=load_record,
        describe=lambda item: f'{item[1]}[{item[2]}]',
        conversion=conversion,
    )


def load_record(item, conversion):
    """Returns the image of a (folder, split, number), the label, and the rules applied."""
    folder, split, number = item
    example = _records(folder, split)[number]
    image, rules = images.convert(example['image'], conversion)
    label = int(example['label'])
    return image, None if label < 0 else label, rules  # test splits without labels have -1


def _prepared(name, data_dir):
    """Returns the prepared tfds builder of a name."""
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            # Nearly all need it. Without, some download for hours before they say so.
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
            f'tfds:{name} is not prepared in {data_dir}; to prepare it takes {module}, once: '
            f'pip install {module}, then start the same command again'
        ) from error
    except NotImplementedError as error:
        raise UserError(
            f'tfds:{name} in {builder.data_path} is no array_record; prepare it with '
            "file_format='array_record' in another folder, and set --config.data.dir to that"
        ) from error
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'tfds:{name}: {" ".join(str(error).split())[:300]}') from error


@functools.lru_cache(maxsize=8)
def _records(folder, split):
    return tfds.builder_from_directory(folder).as_data_source(split)
