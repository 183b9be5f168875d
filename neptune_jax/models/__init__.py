"""Networks, one file a family. A model maps float32[B, H, W, C] to logits float32[B, classes]."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from neptune_jax.errors import UserError, choose_or_import
from neptune_jax.models.cnn import CNN
from neptune_jax.models.resnet import ResNet

MODELS = {'cnn': CNN, 'resnet': ResNet}

# Fields of a module that the experiment sets, not the config; those of Flax itself.
_NOT_IN_CONFIG = {'num_classes', 'batch_norm_axis', 'parent', 'name'}


def complete_fields(config: ConfigDict) -> ConfigDict:
    """Returns the `model` group with every field of its module, where unset with the default.

    Args:
        config: `name`, a key of MODELS or 'package.module:name' of a Flax module, and some of that
            module's fields.

    Raises:
        UserError: an unknown name, or a field that the module does not have.
    """
    module = choose_or_import(MODELS, config.name, 'model.name')
    if not (isinstance(module, type) and dataclasses.is_dataclass(module)):
        raise UserError(f'model.name={config.name!r} is no Flax module')
    fields = {field.name: field for field in dataclasses.fields(module) if field.init}
    known = fields.keys() - _NOT_IN_CONFIG
    for field in config:
        if field != 'name' and field not in known:
            raise UserError(
                f'model.{field} is no field of {module.__name__}; it has: '
                + ', '.join(sorted(known))
            )
    defaults = {
        name: field.default
        for name, field in fields.items()
        if name in known and field.default is not dataclasses.MISSING
    }
    return ConfigDict(defaults | config.to_dict())


def create_model(config: ConfigDict, num_classes: int, batch_norm_axis: str | None = None) -> Any:
    """Returns the Flax module that the `model` group describes.

    Args:
        config: as for `complete_fields`.
        num_classes: width of the output layer.
        batch_norm_axis: axis of devices that batch statistics are averaged over, or None.

    Raises:
        UserError: an unknown name, or a field that the module does not have or refuses.
    """
    module = choose_or_import(MODELS, config.name, 'model.name')
    fields = complete_fields(config).to_dict()
    del fields['name']
    if 'batch_norm_axis' in {field.name for field in dataclasses.fields(module)}:
        fields['batch_norm_axis'] = batch_norm_axis
    try:
        return module(num_classes=num_classes, **fields)
    except TypeError as error:  # a field without a default that the config does not set
        raise UserError(f'model.name={config.name!r}: {error}') from error
