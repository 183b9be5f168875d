"""Data sets that publishers offer as archives: where the archives come from, and their checksums.

`ArchiveBuilder._archives` looks for them in several places, in its order. Wherever they come from,
they must have the published sha256: of the archive, or of its decompressed bytes. Their formats are
in idx.py (MNIST and its kin) and cifar.py.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from neptune_jax.data.sources.builder import VERSION, ImageBuilder, Preparation
from neptune_jax.errors import UserError
from neptune_jax.runs.files import expand_user


def preparation_of(builder: type['ArchiveBuilder']) -> Callable[[ConfigDict, Path], Preparation]:
    """Returns the function `preparation` of the data set that a builder prepares.

    Its Preparation is refused (UserError) if `data.archive_dir` is set but does not hold the
    published archives, also when the data set has been prepared from another place.
    """

    def preparation(config, data_dir):
        if config.archive_dir:
            _read_all(_in_archive_dir(config.archive_dir, builder.SHA256), builder.SHA256)

        def create_builder():
            return builder(data_dir=data_dir, archive_dir=config.archive_dir)

        return Preparation(data_dir / builder.name / VERSION, create_builder)

    return preparation


class ArchiveBuilder(ImageBuilder):
    """A tfds builder whose images come from a publisher's archives."""

    SHA256: dict[str, str]  # by the name of each archive: of the archive or its decompressed bytes
    URL: str  # the publisher's folder
    FOLDER = ''  # where a package of the system installs the archives
    DEBIAN_PACKAGE = ''  # the package that does so

    def __init__(self, *, data_dir: Path, archive_dir: str = '') -> None:
        self.archive_dir = archive_dir
        super().__init__(data_dir=data_dir)

    def parse(self, contents: dict[str, bytes]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns images uint8[n, H, W, C] and labels uint8[n] of each split, by its name.

        Args:
            contents: the decompressed bytes of each archive, by its name.
        """
        raise NotImplementedError

    def _split_generators(self, dl_manager):
        contents = _read_all(self._archives(dl_manager), self.SHA256)
        return {
            split: self._generate_examples(images, labels)
            for split, (images, labels) in self.parse(contents).items()
        }

    def _generate_examples(self, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {'image': image, 'label': int(label)}

    def _archives(self, dl_manager):
        """Returns the path of each archive, from the first place that has them all."""
        if self.archive_dir:
            self.say(f'reading the archives in {self.archive_dir}')
            return _in_archive_dir(self.archive_dir, self.SHA256)
        paths = (
            (self.FOLDER and self._from_folder(Path(self.FOLDER)))
            or self._from_publisher(dl_manager)
            or (self.DEBIAN_PACKAGE and self._from_debian(Path(dl_manager.download_dir)))
        )
        if not paths:
            package = (
                f'install the Debian package {self.DEBIAN_PACKAGE}, or '
                if self.DEBIAN_PACKAGE
                else ''
            )
            raise UserError(
                f'{self.name}: its archives were not found and could not be fetched; connect to '
                f'{self.URL}, or {package}put {", ".join(self.SHA256)} into a folder and set '
                '--config.data.archive_dir to it'
            )
        return paths

    def _from_folder(self, folder):
        paths = _find_all(folder, self.SHA256)
        if None in paths.values():
            return None
        self.say(f'reading the archives in {folder}')
        return paths

    def _from_publisher(self, dl_manager):
        urls = {name: self.URL + name for name in self.SHA256}
        self.say(f'downloading from {self.URL}')
        try:
            # tfds waits without a limit and tries ten times. So first ask for an answer in 10 s.
            probe = urllib.request.Request(next(iter(urls.values())), method='HEAD')
            urllib.request.urlopen(probe, timeout=10).close()
            return {name: Path(path) for name, path in dl_manager.download(urls).items()}
        except (OSError, tfds.download.DownloadError) as error:
            self.say(f'the publisher cannot be reached ({getattr(error, "reason", error)})')
            return None

    def _from_debian(self, downloads):
        if not (shutil.which('apt-get') and shutil.which('dpkg-deb')):
            return None
        into = downloads / self.DEBIAN_PACKAGE
        self.say(f"fetching Debian's package {self.DEBIAN_PACKAGE} into {into}")
        try:
            fetch_debian_package(self.DEBIAN_PACKAGE, into)
        except (OSError, subprocess.SubprocessError) as error:
            reason = (getattr(error, 'stderr', None) or str(error)).strip().splitlines()[-1]
            self.say(f"Debian's mirrors did not give it ({reason})")
            return None
        return self._from_folder(into / self.FOLDER.lstrip('/'))


def _find_all(folder, names):
    """Returns the path of each archive in a folder, compressed or not; None if there is none."""
    paths = {}
    for name in names:
        candidates = (folder / name, folder / name.removesuffix('.gz'))
        paths[name] = next((path for path in candidates if path.is_file()), None)
    return paths


def _in_archive_dir(archive_dir, names):
    """Returns the path of each archive in the folder `data.archive_dir`, or raises UserError."""
    folder = Path(expand_user(archive_dir, 'data.archive_dir'))
    if not folder.is_dir():
        raise UserError(f'data.archive_dir={archive_dir!r} is not a folder')
    paths = _find_all(folder, names)
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise UserError(f'data.archive_dir={archive_dir!r} holds no {", ".join(missing)}')
    return paths


def _read_all(paths, sha256):
    """Returns the decompressed bytes of each archive, by its name."""
    return {name: read_archive(paths[name], sha256[name]) for name in sha256}


def read_archive(path: Path, sha256: str) -> bytes:
    """Returns the decompressed bytes of an archive.

    Raises:
        UserError: the file cannot be read, or neither the file nor its decompressed bytes have the
            given sha256.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    plain, problem = decompress(content)
    found = hashlib.sha256(plain).hexdigest()
    if sha256 not in (found, hashlib.sha256(content).hexdigest()):
        raise UserError(
            f'{path} is damaged: its contents{problem} have sha256 {found}, expected {sha256}; '
            'delete it, or put an undamaged copy in its place'
        )
    return plain


def decompress(content: bytes) -> tuple[bytes, str]:
    """Returns the decompressed bytes of a file that may be gzipped.

    If the file is damaged, these are the bytes before the damage, and the second result, else '',
    says what is wrong.
    """
    if not content.startswith(b'\x1f\x8b'):
        return content, ''
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = decompressor.decompress(content)
    except zlib.error as error:
        return b'', f' cannot be decompressed ({error}) and so'
    return plain, '' if decompressor.eof else ' (the file is cut short)'


def fetch_debian_package(package: str, into: Path) -> None:
    """Downloads a Debian package and unpacks it into a folder. Nothing is installed.

    Raises:
        OSError, subprocess.SubprocessError: apt-get or dpkg-deb is missing or fails.
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
