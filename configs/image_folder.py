"""Your own images: a folder with one subfolder a class.

Reproduces:  nothing; a start for small images of your own. 0.97 and more on the 1,797 digits of
             scikit-learn written out as PNG files.
Command:     python -m neptune_jax.main --config=configs/image_folder.py --config.data.path=FOLDER
Expected:    depends on the images
"""

from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model = ConfigDict({'name': 'cnn', 'features': (32, 64), 'activation': 'leaky_relu'})
    config.data.name = 'image_folder'
    config.data.path = 'images'  # images/train/CLASS/*.png, maybe images/val, images/test
    config.data.image_size = (28, 28)
    config.data.channels = 1
    config.data.resize = 'stretch'
    config.augment.translate = 2
    config.train.epochs = 30.0
    config.train.batch_size = 64
    return config
