"""Networks, one file a family. A model maps float[B, H, W, C] to logits float[B, classes]."""

import inspect

from neptune_jax.errors import UserError, choose
from neptune_jax.models.cnn import CNN

MODELS = {'cnn': CNN}


def create_model(config, num_classes):
    """Returns the Flax module that `config.model` describes.

    Args:
        config: the `model` group: `name`, a key of MODELS, and fields of that module.
        num_classes: width of the output layer.

    Raises:
        UserError: an unknown name, or a field that the module does not have.
    """
    fields = config.to_dict()
    module = choose(MODELS, fields.pop('name'), 'model.name')
    known = set(inspect.signature(module).parameters) - {'num_classes', 'parent', 'name'}
    for field in fields:
        if field not in known:
            raise UserError(
                f'model.{field} is no field of {module.__name__}; it has: '
                + ', '.join(sorted(known))
            )
    return module(num_classes=num_classes, **fields)
