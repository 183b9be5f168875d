"""Your own photographs: a folder with one subfolder a class.

Reproduces:  nothing; a start for colour photographs of your own, cropped to 64 x 64 pixels.
Command:     python -m neptune_jax.main --config=configs/photos.py --config.data.path=FOLDER
Expected:    depends on the images
"""

from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model = ConfigDict(
        {'name': 'cnn', 'features': (16, 32, 64), 'norm': 'batch', 'activation': 'relu'}
    )
    config.data.name = 'image_folder'
    config.data.path = 'photos'  # photos/CLASS/*.jpg, or photos/train/CLASS/*.jpg and so on
    config.data.image_size = (64, 64)
    config.data.channels = 3
    config.data.resize = 'crop'
    config.augment.flip = 'random'
    config.augment.translate = 4
    config.train.epochs = 20.0
    config.train.batch_size = 32
    return config
