"""Data sets that publishers offer as archives, in the formats of MNIST and of CIFAR.

A builder finds its archives by itself; `_archives` lists the places in their order. However they
came, they must have the published sha256: of the archive, or of what it decompresses to.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from pathlib import Path

import tensorflow_datasets as tfds

from neptune_jax.data.sources.builder import ImageBuilder
from neptune_jax.errors import UserError


class ArchiveBuilder(ImageBuilder, skip_registration=True):
    """A tfds builder whose images come from a publisher's archives."""

    SHA256: dict[str, str]  # of each archive by its name, or of what it decompresses to
    URL: str  # the publisher's folder
    FOLDER = ''  # where the archives lie if something installed them
    DEBIAN_PACKAGE = ''  # what installs them there

    def __init__(self, *, data_dir, archive_dir=''):
        self.archive_dir = archive_dir
        super().__init__(data_dir=data_dir)

    def parse(self, contents):
        """Returns images uint8[n, H, W, C] and labels uint8[n] of each split, by its name.

        Args:
            contents: the decompressed bytes of each archive, by its name.
        """
        raise NotImplementedError

    def _split_generators(self, dl_manager):
        paths = self._archives(dl_manager)
        contents = {name: read_archive(paths[name], self.SHA256[name]) for name in self.SHA256}
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
            return self._in_folder(Path(self.archive_dir).expanduser(), required=True)
        archives = (
            (self.FOLDER and self._in_folder(Path(self.FOLDER)))
            or self._from_publisher(dl_manager)
            or (self.DEBIAN_PACKAGE and self._from_debian(Path(dl_manager.download_dir)))
        )
        if not archives:
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
        return archives

    def _in_folder(self, folder, required=False):
        archives = {}
        for name in self.SHA256:
            candidates = (folder / name, folder / name.removesuffix('.gz'))
            found = next((path for path in candidates if path.is_file()), None)
            if found is None:
                if required:
                    raise UserError(f'data.archive_dir={str(folder)!r} holds no {name}')
                return None
            archives[name] = found
        self.say(f'reading the archives in {folder}')
        return archives

    def _from_publisher(self, dl_manager):
        urls = {name: self.URL + name for name in self.SHA256}
        self.say(f'downloading from {self.URL}')
        try:
            # tfds waits without a limit and tries ten times, so ask first whether anybody is there.
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
        return self._in_folder(into / self.FOLDER.lstrip('/'))


def read_archive(path, sha256):
    """Returns the decompressed bytes of an archive.

    Raises:
        UserError: neither the file nor its decompressed bytes have the given sha256.
    """
    content = path.read_bytes()
    plain, problem = decompress(content)
    found = hashlib.sha256(plain).hexdigest()
    if sha256 not in (found, hashlib.sha256(content).hexdigest()):
        raise UserError(
            f'{path} is damaged: its contents{problem} have sha256 {found}, expected {sha256}; '
            'delete it, or put an undamaged copy in its place'
        )
    return plain


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
