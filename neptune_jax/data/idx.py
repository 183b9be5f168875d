"""Data sets in the IDX format of MNIST, as tfds builders that need no TensorFlow.

A builder finds its four archives by itself; `_archives` lists the places in their order. However
they came, the decompressed bytes must have the published sha256.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax.errors import UserError

# The names under which every publisher of the format has its archives, less '.gz'.
FILES = (
    'train-images-idx3-ubyte',
    'train-labels-idx1-ubyte',
    't10k-images-idx3-ubyte',
    't10k-labels-idx1-ubyte',
)


class IdxBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A tfds builder of images uint8[H, W, 1] and labels, from four gzipped IDX files.

    Subclasses state the class attributes. They are not registered with tfds, whose own data sets
    of the same names need TensorFlow and keep their own versions.
    """

    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # no file of checksums for tfds to look for: `read_archive` checks them

    CLASS_NAMES: tuple[str, ...]
    IMAGE_SHAPE = (28, 28, 1)
    SHA256: tuple[str, ...]  # of the decompressed FILES, in their order
    FOLDER: str  # where the archives lie if something installed them
    URL: str  # the publisher's folder
    DEBIAN_PACKAGE: str  # what installs them into FOLDER

    def __init__(self, *, data_dir, archive_dir=''):
        self.archive_dir = archive_dir
        super().__init__(data_dir=data_dir, file_format='array_record')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Tensor(shape=self.IMAGE_SHAPE, dtype=np.uint8),
                'label': tfds.features.ClassLabel(names=list(self.CLASS_NAMES)),
            }
        )
        # The order of the publisher is kept: what is shuffled, and by which seed, is ours to say.
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        arrays = [
            parse_idx(read_archive(Path(path), sha256))
            for path, sha256 in zip(self._archives(dl_manager), self.SHA256, strict=True)
        ]
        return {
            'train': self._generate_examples(*arrays[:2]),
            'test': self._generate_examples(*arrays[2:]),
        }

    def _generate_examples(self, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {'image': image.reshape(self.IMAGE_SHAPE), 'label': int(label)}

    def _archives(self, dl_manager):
        """Returns the paths of the archives, from the first place that has them all."""
        if self.archive_dir:
            return self._in_folder(Path(self.archive_dir).expanduser(), required=True)
        archives = (
            self._in_folder(Path(self.FOLDER))
            or self._from_publisher(dl_manager)
            or self._from_debian(Path(dl_manager.download_dir))
        )
        if not archives:
            raise UserError(
                f'{self.name}: its archives were not found and could not be fetched; connect to '
                f'{self.URL}, or install the Debian package {self.DEBIAN_PACKAGE}, or put '
                f'{", ".join(f"{name}.gz" for name in FILES)} into a folder and set '
                '--config.data.archive_dir to it'
            )
        return archives

    def _in_folder(self, folder, required=False):
        archives = []
        for name in FILES:
            candidates = (folder / f'{name}.gz', folder / name)
            found = next((path for path in candidates if path.is_file()), None)
            if found is None:
                if required:
                    raise UserError(f'data.archive_dir={str(folder)!r} holds no {name}.gz')
                return None
            archives.append(found)
        self._say(f'reading the archives in {folder}')
        return archives

    def _from_publisher(self, dl_manager):
        urls = [f'{self.URL}{name}.gz' for name in FILES]
        self._say(f'downloading from {self.URL}')
        try:
            # tfds waits without a limit and tries ten times, so ask first whether anybody is there.
            probe = urllib.request.Request(urls[0], method='HEAD')
            urllib.request.urlopen(probe, timeout=10).close()
            return dl_manager.download(urls)
        except (OSError, tfds.download.DownloadError) as error:
            self._say(f'the publisher cannot be reached ({getattr(error, "reason", error)})')
            return None

    def _from_debian(self, downloads):
        if not (shutil.which('apt-get') and shutil.which('dpkg-deb')):
            return None
        into = downloads / self.DEBIAN_PACKAGE
        self._say(f"fetching Debian's package {self.DEBIAN_PACKAGE} into {into}")
        try:
            fetch_debian_package(self.DEBIAN_PACKAGE, into)
        except (OSError, subprocess.SubprocessError) as error:
            reason = (getattr(error, 'stderr', None) or str(error)).strip().splitlines()[-1]
            self._say(f"Debian's mirrors did not give it ({reason})")
            return None
        return self._in_folder(into / self.FOLDER.lstrip('/'))

    def _say(self, message):
        print(f'{self.name}: {message}', flush=True)


def read_archive(path, sha256):
    """Returns the decompressed bytes of an archive.

    Raises:
        UserError: the bytes do not have the given sha256.
    """
    content, problem = decompress(path.read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f'{path} is damaged: its contents{problem} have sha256 {found}, expected {sha256}; '
            'delete it, or put an undamaged copy in its place'
        )
    return content


def decompress(content):
    """Returns the plain bytes of a file that may be gzipped, as far as they can be had.

    The second result says what cut them short, '' where nothing did.
    """
    if not content.startswith(b'\x1f\x8b'):
        return content, ''
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = decompressor.decompress(content)
    except zlib.error as error:
        return b'', f' cannot be decompressed ({error}) and so'
    return plain, '' if decompressor.eof else ' (the file is cut short)'


def parse_idx(content):
    """Returns the array in the bytes of an IDX file of unsigned bytes.

    The format: two zero bytes, the type (8: uint8), the number of dimensions, then each
    dimension as a big-endian int32, then the elements, last dimension fastest.
    """
    dimensions = content[3]
    shape = np.frombuffer(content, '>i4', count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def fetch_debian_package(package, into):
    """Downloads a Debian package and unpacks it into a folder; nothing is installed.

    Raises:
        subprocess.SubprocessError: where apt-get or dpkg-deb fails.
    """

    def run(*command, cwd=None):
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=300)

    apt_get = ('apt-get', '-o', 'Acquire::http::Timeout=10', '-o', 'Acquire::Retries=1')
    with tempfile.TemporaryDirectory() as folder:
        lists = Path('/var/lib/apt/lists').glob('*_Packages*')
        if not any(lists) and os.geteuid() == 0:
            run(*apt_get, 'update')
        run(*apt_get, 'download', package, cwd=folder)
        (archive,) = Path(folder).glob('*.deb')
        run('dpkg-deb', '-x', archive, into)


class FashionMnist(IdxBuilder, skip_registration=True):
    """Fashion-MNIST (Xiao et al., 2017): 60,000 and 10,000 images of clothes, 28x28, grey. MIT."""

    CLASS_NAMES = (
        'T-shirt/top',
        'Trouser',
        'Pullover',
        'Dress',
        'Coat',
        'Sandal',
        'Shirt',
        'Sneaker',
        'Bag',
        'Ankle boot',
    )
    SHA256 = (
        'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
        'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
        '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
        '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
    )
    URL = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
    FOLDER = '/usr/share/datasets/fashion-mnist'
    DEBIAN_PACKAGE = 'dataset-fashion-mnist'


class FashionMnistMini(IdxBuilder, skip_registration=True):
    """The first 250 training and 50 test images of each class of Fashion-MNIST; in the package."""

    CLASS_NAMES = FashionMnist.CLASS_NAMES
    SHA256 = (
        '3ca58825dab4cbbfeea27e6b047aac4e2079a44d79b3fb15c06d22db2582a81a',
        '38d04293f429605b6c713608e16c0e56f43fcf50bc393b31eafdfd423626fbf1',
        '8fdf02ada67d92f4db5ba3c2f6c5b1cc6186ba6e0efd4914661e4389e103b81e',
        '9c71808b3a0ebfc091442c0009a7aa35be2d9622bf6aaf6891ce9a0088e96c07',
    )
    FOLDER = str(Path(__file__).parent / 'fashion_mnist_mini')
