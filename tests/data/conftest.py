"""Images of one's own, written as people have them, opened as training opens them."""

import numpy as np
import pytest
from PIL import Image

from configs import cnn
from neptune_jax.data import dataset
from neptune_jax.data.sources import opening
from neptune_jax.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Opens the images in tmp_path/raw, or another source, with the default config otherwise."""

    def read(**fields):
        config = cnn.get_config().data
        defaults = {'name': 'image_folder', 'path': str(tmp_path / 'raw')}
        config.update_from_flattened_dict(defaults | {'dir': str(tmp_path / 'data')} | fields)
        return opening.open_source(config)

    return read


@pytest.fixture
def write(tmp_path):
    """Writes arrays or Pillow images to tmp_path/raw by their names."""

    def write(files):
        for name, image in files.items():
            path = tmp_path / 'raw' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            image.save(path)

    return write


@pytest.fixture
def load(tmp_path):
    """Opens the images in tmp_path/raw as a Dataset. No images are held out."""

    def load(**fields):
        config = cnn.get_config().data
        defaults = {'name': 'image_folder', 'path': str(tmp_path / 'raw'), 'channels': 3}
        defaults |= {'image_size': (7, 6), 'val_fraction': 0.0, 'test_fraction': 0.0}
        config.update_from_flattened_dict(defaults | {'dir': str(tmp_path / 'data')} | fields)
        return dataset.load(config)

    return load


@pytest.fixture
def paste(write):
    """Writes a different photo under each name."""

    def paste(names):
        rng = np.random.default_rng([*''.join(names).encode('utf-8', 'surrogateescape')])
        write({name: rng.integers(0, 256, (7, 6, 3)).astype(np.uint8) for name in names})

    return paste


@pytest.fixture
def refused(read, tmp_path):
    """Asserts that a source is refused in one line, and that nothing is left half-prepared."""

    def refused(match, **fields):
        with pytest.raises(UserError, match=match) as caught:
            read(**fields)
        assert '\n' not in str(caught.value)
        assert not [path for path in (tmp_path / 'data').rglob('*') if path.is_file()]

    return refused
