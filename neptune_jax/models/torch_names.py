"""Weights of PyTorch networks, as the networks here name and lay them out.

It covers the names of torchvision's and timm's ResNets, of timm's vision transformers, and of all
networks whose twin here is built in one of two ways. The twin's modules have PyTorch's names, with
numbers joined to the name before them: `layer1.0.conv1` is `layer1_0/conv1`. Or Flax numbers its
layers in the order of creation: the first convolution is `Conv_0`, the first linear one `Dense_0`.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np

_STATISTICS = {'running_mean': 'mean', 'running_var': 'var'}
_NUMBERED = re.compile(r'params/(Conv|BatchNorm|LayerNorm|Dense)_\d+/')


def from_torch(arrays: Mapping[str, np.ndarray], paths: Collection[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a PyTorch state dict by the paths of parameters and batch statistics.

    Kernels become [height, width, in, out] and [in, out]. If the first linear layer of a network
    with numbered layers follows a flattened image, its rows are reordered: PyTorch flattens
    channels first, networks here channels last.

    Args:
        arrays: by PyTorch's names.
        paths: of the network's own arrays, such as 'params/Conv_0/kernel'.
    """
    name_modules = in_order if any(map(_NUMBERED.match, paths)) else by_name
    modules = name_modules(arrays)
    found = {}
    for name, array in arrays.items():
        module, _, leaf = name.rpartition('.')
        if leaf != 'num_batches_tracked':  # a count that Flax does not have
            collection = 'batch_stats' if leaf in _STATISTICS else 'params'
            parts = (collection, modules[module], _leaf(leaf, array))
            found['/'.join(filter(None, parts))] = (
                _channels_last(array) if leaf == 'weight' else array
            )
    if name_modules is in_order:
        _reorder_flattened(found)
    return found


def by_name(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns the path of each module of a state dict: 'layer1.0.conv1' is 'layer1_0/conv1'."""
    return {
        module: re.sub(r'\.(?=\d+(\.|$))', '_', module).replace('.', '/')
        for module in _modules(arrays)
    }


def in_order(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns the path of each module of a state dict as Flax numbers them: 'conv1' is 'Conv_0'.

    Modules of a kind are numbered in the order of their names, in which 'layer2' precedes
    'layer10'. That is the order in which ResNets create them.
    """
    counts: dict[str, int] = {}
    paths = {}
    for module in sorted(_modules(arrays), key=_natural):
        kind = _kind(arrays, module)
        paths[module] = f'{kind}_{counts.get(kind, 0)}'
        counts[kind] = counts.get(kind, 0) + 1
    return paths


def _modules(arrays):
    return {name.rpartition('.')[0] for name in arrays}


def _natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]


def _kind(arrays, module):
    if f'{module}.running_mean' in arrays:
        return 'BatchNorm'
    rank = np.ndim(arrays.get(f'{module}.weight', 0))
    return {1: 'LayerNorm', 2: 'Dense'}.get(rank, 'Conv')


def _leaf(leaf, array):
    if leaf == 'weight':
        return 'kernel' if array.ndim > 1 else 'scale'
    return _STATISTICS.get(leaf, leaf)


def _channels_last(array):
    """Returns [out, in, ...] as [..., in, out]."""
    return array.transpose(*range(2, array.ndim), 1, 0) if array.ndim > 1 else array


def _reorder_flattened(found):
    """Brings the rows of the first linear layer, [channels, pixels], into [pixels, channels]."""
    convolutions = [path for path in found if re.fullmatch(r'params/Conv_\d+/kernel', path)]
    first = 'params/Dense_0/kernel'
    if first in found and convolutions:
        channels = found[max(convolutions, key=_natural)].shape[-1]
        rows, features = found[first].shape
        if rows % channels == 0:
            kernel = found[first].reshape(channels, rows // channels, features)
            found[first] = kernel.swapaxes(0, 1).reshape(rows, features)
