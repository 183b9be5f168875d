"""Three convolutions of 32, 64 and 128 channels with ReLU, a pool after each, one dense layer.

Reproduces:  the three-convolution variant of the reference material.
Command:     python -m neptune_jax.main --config=configs/cnn3.py
Expected:    see the results table in README.md
"""

from configs import cnn


def get_config():
    config = cnn.get_config()
    config.model.features = (32, 64, 128)
    config.model.activation = 'relu'
    return config
