"""Two 5x5 convolutions of 6 and 16 channels without padding, a dense layer of 256: a small LeNet.

Reproduces:  the first PyTorch-style network of the reference material.
Command:     python -m neptune_jax.main --config=configs/simple_net.py
Expected:    see the results table in README.md
"""

from configs import cnn


def get_config():
    config = cnn.get_config()
    config.model.features = (6, 16)
    config.model.kernel_size = 5
    config.model.padding = 'VALID'
    config.model.hidden = (256,)
    config.model.activation = 'relu'
    return config
