"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in their binary format."""

import io
import tarfile
from pathlib import PurePosixPath

import numpy as np

from neptune_jax.data.sources.archives import ArchiveBuilder
from neptune_jax.errors import UserError


class CifarBuilder(ArchiveBuilder):
    """Colour images of 32x32 from one tar archive of binary files.

    A file is a sequence of records. A record is LABEL_BYTES labels, of which the last one is used,
    and 3,072 pixels: the red channel row by row, then the green, then the blue one.
    """

    IMAGE_SHAPE = (32, 32, 3)
    URL = 'https://www.cs.toronto.edu/~kriz/'
    LABEL_BYTES: int
    FILES: dict[str, tuple[str, ...]]  # the names of the files of each split

    def parse(self, contents: dict[str, bytes]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the images and labels of each split; see ArchiveBuilder."""
        (content,) = contents.values()
        files = read_tar(content, self.name)
        splits = {}
        for split, names in self.FILES.items():
            content = b''.join(files[name] for name in names)
            records = np.frombuffer(content, np.uint8).reshape(-1, self.LABEL_BYTES + 3072)
            images = records[:, self.LABEL_BYTES :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            splits[split] = (images, records[:, self.LABEL_BYTES - 1])
        return splits


def read_tar(content: bytes, name: str) -> dict[str, bytes]:
    """Returns the files of a tar archive by their names without folders. Nothing is written.

    Args:
        content: the bytes of the archive.
        name: of the data set, for the error message.

    Raises:
        UserError: a member whose path leads out of the archive's own folder.
    """
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if path.is_absolute() or '..' in path.parts:
                raise UserError(
                    f'{name}: its archive has a member {member.name!r} outside its own folder; '
                    'do not trust that archive'
                )
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                files[path.name] = file.read()
    return files


class Cifar10(CifarBuilder):
    """CIFAR-10: 50,000 and 10,000 photographs of ten classes."""

    CLASS_NAMES = (
        'airplane',
        'automobile',
        'bird',
        'cat',
        'deer',
        'dog',
        'frog',
        'horse',
        'ship',
        'truck',
    )
    SHA256 = {
        'cifar-10-binary.tar.gz': 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'
    }
    LABEL_BYTES = 1
    FILES = {
        'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
        'test': ('test_batch.bin',),
    }


class Cifar100(CifarBuilder):
    """CIFAR-100: 50,000 and 10,000 photographs of a hundred classes (the fine labels)."""

    CLASS_NAMES = tuple(
        'apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus '
        'butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach '
        'couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster '
        'house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree '
        'motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear '
        'pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road '
        'rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel '
        'streetcar sunflower sweet_pepper table tank telephone television tiger tractor train '
        'trout tulip turtle wardrobe whale willow_tree wolf woman worm'.split()
    )
    SHA256 = {
        'cifar-100-binary.tar.gz': (
            '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec'
        )
    }
    LABEL_BYTES = 2
    FILES = {'train': ('train.bin',), 'test': ('test.bin',)}
