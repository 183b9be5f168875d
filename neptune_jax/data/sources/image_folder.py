"""A folder of images: one subfolder for each class, in one folder for each split or in none."""

import functools
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from neptune_jax.data.sources import images, raw
from neptune_jax.data.sources.builder import Preparation
from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError

ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif')
SPLITS = ('train', 'val', 'test')


def preparation(config: ConfigDict, data_dir: Path) -> Preparation:
    """Returns the Preparation of `path/train/CLASS/*.png` and, if they exist, `val` and `test`.

    Without a folder `train`, the folders of the classes are in `path` itself.

    Args:
        config: the `data` group.
        data_dir: the folder of prepared data.

    Raises:
        UserError: no such folder, a class without images or with one, a class that training lacks.
    """
    if not config.path:
        raise UserError(f'data.name={config.name!r} needs --config.data.path')
    path = Path(config.path).expanduser()
    if not path.is_dir():
        raise UserError(f'data.path={str(path)!r} is not a folder')
    roots = _split_folders(path)
    splits = {split: _files(root) for split, root in roots.items()}
    classes = _classes(roots, splits)

    def name_of(split, number):
        return str(splits[split][number].relative_to(path))

    return raw.preparation(
        config,
        data_dir,
        name='image_folder',
        files=[file for part in splits.values() for file in part],
        read=functools.partial(_read, roots['train'], splits, classes),
        name_of=name_of,
    )


def load_file(item: tuple[str, int], conversion: Conversion) -> tuple[np.ndarray, int, list[str]]:
    """Returns the image of a (path, label), the label, and the rules that changed the image."""
    path, label = item
    image, rules = images.decode(path, conversion)
    return image, label, rules


def content_of_file(item: tuple[str, int]) -> bytes:
    """Returns the bytes of the file of a (path, label)."""
    return Path(item[0]).read_bytes()


def _split_folders(path):
    """Returns the folder of each split."""
    roots = {split: path / split for split in SPLITS if (path / split).is_dir()}
    if 'train' not in roots:
        return {'train': path}
    for other in sorted(path.iterdir()):
        if other.is_dir() and not other.name.startswith('.') and other.name not in SPLITS:
            raise UserError(f'{other} is not a split; name it val or test, or move it away')
    return roots


def _files(root):
    """Returns the images in the class folders of a split, without hidden ones."""
    files = []
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith('.'):
            own = [
                file
                for file in sorted(folder.iterdir())
                if file.suffix.lower() in ENDINGS and not file.name.startswith('.')
            ]
            if not own:
                raise UserError(f'{folder} holds no images (*{", *".join(ENDINGS)}); remove it')
            files += own
    if not files:
        raise UserError(f'{root} has no images; put those of each class into a folder in it')
    return files


def _classes(roots, splits):
    """Returns the names of the training classes, sorted: the label is the place in this list."""
    classes = sorted({file.parent.name for file in splits['train']})
    for name in classes:  # tfds keeps them as the lines of a text file
        if name != name.strip() or not name.isprintable():
            raise UserError(f'{roots["train"]}: rename the folder {name!r}; it names a class')
    for split, files in splits.items():
        unknown = sorted({file.parent.name for file in files}.difference(classes))
        if unknown:
            raise UserError(f'{roots[split] / unknown[0]}: training has no class {unknown[0]!r}')
    raw.check_counts(roots['train'], [file.parent.name for file in splits['train']])
    return classes


def _read(root, splits, classes, conversion):
    labels = {name: label for label, name in enumerate(classes)}
    return raw.RawImages(
        class_names=classes,
        splits={
            split: [(str(file), labels[file.parent.name]) for file in files]
            for split, files in splits.items()
        },
        load=load_file,
        conversion=raw.resolve(conversion, splits['train'], _shape_of_file, root),
        content=content_of_file,
    )


def _shape_of_file(file, conversion):
    image = images.open_image(file, conversion.max_pixels)
    grey = images.Image.getmodebase(image.mode) == 'L'
    return (image.height, image.width), 1 if grey else 3
