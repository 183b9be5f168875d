"""A folder of images with one subfolder a class, and maybe a folder for each split above those."""

from pathlib import Path

from neptune_jax.data.sources import images
from neptune_jax.data.sources.builder import Raw, check_counts, fingerprint, resolve
from neptune_jax.errors import UserError

ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif')
SPLITS = ('train', 'val', 'test')


def image_folder(path, conversion):
    """Returns the Raw of `path/train/CLASS/*.png` and, where they exist, `val` and `test`.

    Without a folder `train`, the classes lie in `path` itself.

    Raises:
        UserError: no such folder, a class without images or with one, a class that training lacks.
    """
    if not path.is_dir():
        raise UserError(f'data.path={str(path)!r} is no folder')
    roots = {split: path / split for split in SPLITS if (path / split).is_dir()}
    if 'train' not in roots:
        roots = {'train': path}
    else:
        for other in sorted(path.iterdir()):
            if other.is_dir() and not other.name.startswith('.') and other.name not in SPLITS:
                raise UserError(f'{other} is no split; name it val or test, or move it away')
    splits = {split: _files(root) for split, root in roots.items()}
    classes = sorted({file.parent.name for file in splits['train']})
    for name in classes:
        if name != name.strip() or not name.isprintable():
            raise UserError(f'{roots["train"]}: rename the folder {name!r}; it names a class')
    for split, files in splits.items():
        unknown = sorted({file.parent.name for file in files}.difference(classes))
        if unknown:
            raise UserError(f'{roots[split] / unknown[0]}: training has no class {unknown[0]!r}')
    check_counts(roots['train'], [file.parent.name for file in splits['train']])
    conversion = resolve(conversion, splits['train'], _size_of_file, roots['train'])
    numbers = {name: number for number, name in enumerate(classes)}
    return Raw(
        name='image_folder',
        fingerprint=fingerprint(
            [file for part in splits.values() for file in part], conversion, classes
        ),
        class_names=classes,
        splits={
            split: [(str(file), numbers[file.parent.name]) for file in part]
            for split, part in splits.items()
        },
        load=load_file,
        describe=lambda item: str(Path(item[0]).relative_to(path)),
        conversion=conversion,
    )


def load_file(item, conversion):
    """Returns the image of a (path, label), the label, and the rules applied."""
    path, label = item
    image, rules = images.decode(path, conversion)
    return image, label, rules


def _files(root):
    """Returns the images in the folders of a split; whatever is hidden is left alone."""
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


def _size_of_file(file, conversion):
    image = images.open_image(file, conversion.max_pixels)
    grey = images.Image.getmodebase(image.mode) == 'L'
    return (image.height, image.width), 1 if grey else 3
