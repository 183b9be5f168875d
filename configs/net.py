"""Three convolutions of 32, 64 and 128 channels, a pool after each, a dense layer of 512.

Reproduces:  the second PyTorch-style network of the reference material.
Command:     python -m neptune_jax.main --config=configs/net.py
Expected:    test accuracy 0.9251 ± 0.0017 over 3 seeds; 33 s an epoch on
             two cores of an Intel Xeon at 2.5 GHz (experiments/four_networks/results)
"""

from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model = ConfigDict(
        {'name': 'cnn', 'features': (32, 64, 128), 'hidden': (512,), 'activation': 'relu'}
    )
    return config
