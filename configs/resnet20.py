"""ResNet-20 with 300 epochs of SGD, shifts and flips.

Reproduces:  Zhong et al., 'Random erasing data augmentation' (2020): 4.39% test error on
             Fashion-MNIST, and 4.02% with --config.augment.erase=0.5. The network is that of He et
             al. (2015), section 4.2.
Command:     python -m neptune_jax.main --config=configs/resnet20.py
Expected:    not run to its end; for an accelerator. --config.train.epochs=30 shortens it, with its
             schedule.
"""

from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model = ConfigDict({'name': 'resnet', 'depth': 20, 'width': 16})
    config.augment.flip = 'random'
    config.augment.crop_padding = 4
    config.optim.name = 'sgd'
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.schedule = 'step'
    config.optim.decay_at = ('50%', '75%')
    config.train.epochs = 300.0
    return config
