"""ResNet-20 with 300 epochs of SGD, shifts and flips.

Reproduces:  Zhong et al., 'Random erasing data augmentation' (2020): 4.39% test error on
             Fashion-MNIST, and 4.02% with --config.augment.erase=0.5. The network is that of He et
             al. (2015), section 4.2.
Command:     python -m neptune_jax.main --config=configs/resnet20.py
Expected:    not run to its end; for an accelerator. --config.train.epochs=30 shortens it, with its
             schedule.
"""

from ml_collections import ConfigDict

from configs import cnn


def get_config():
    config = cnn.get_config()
    config.model = ConfigDict()
    config.model.name = 'resnet'
    config.model.depth = 20  # 6n + 2 layers
    config.model.width = 16  # channels of the first stage; the others have two and four times those
    config.model.dtype = 'float32'
    config.augment.flip = 'random'
    config.augment.crop_padding = 4
    config.optim.name = 'sgd'
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.schedule = 'step'
    config.optim.decay_at = ('50%', '75%')
    config.train.epochs = 300.0
    return config
