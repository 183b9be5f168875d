"""Three convolutions of 32, 64 and 128 channels, a pool after each, a dense layer of 512.

Reproduces:  the second PyTorch-style network of the reference material.
Command:     python -m neptune_jax.main --config=configs/net.py
Expected:    see the results table in README.md
"""

from configs import cnn


def get_config():
    config = cnn.get_config()
    config.model.features = (32, 64, 128)
    config.model.hidden = (512,)
    config.model.activation = 'relu'
    return config
