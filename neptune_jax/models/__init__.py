"""Networks, one file a family. A model maps float[B, H, W, C] to logits float[B, classes]."""

import inspect

from neptune_jax.errors import UserError, choose
from neptune_jax.models.cnn import CNN
from neptune_jax.models.resnet import ResNet

MODELS = {'cnn': CNN, 'resnet': ResNet}


def create_model(config, num_classes, batch_norm_axis=None):
    """Returns the Flax module that `config.model` describes.

    Args:
        config: the `model` group: `name`, a key of MODELS, and fields of that module.
        num_classes: width of the output layer.
        batch_norm_axis: the axis of devices over which batch statistics are taken, or None.

    Raises:
        UserError: an unknown name, or a field that the module does not have.
    """
    fields = config.to_dict()
    module = choose(MODELS, fields.pop('name'), 'model.name')
    given = {'num_classes': num_classes, 'batch_norm_axis': batch_norm_axis}
    known = set(inspect.signature(module).parameters) - {*given, 'parent', 'name'}
    for field in fields:
        if field not in known:
            raise UserError(
                f'model.{field} is no field of {module.__name__}; it has: '
                + ', '.join(sorted(known))
            )
    return module(**given, **fields)
