"""How each file of an exported model is used: a part of its model card."""

from collections.abc import Sequence
from typing import Any

_FILES = {
    'stablehlo': '`model.stablehlo`: a program for CPU, NVIDIA and AMD GPUs, and TPU, with the '
    'parameters inside. JAX {jax} and later read it.',
    'onnx': '`model.onnx`: the same for ONNX Runtime and other programs that read ONNX.',
    'safetensors': '`model.safetensors`: the parameters by their paths, with the config. A new '
    'training starts from them with `--config.checkpoint.restore_from=model.safetensors`.',
}

_ALWAYS = (
    '`classes.txt`: the names of the classes in the order of the outputs, a line each.',
    '`preprocessing.json`: how a file becomes an image, the exact names of the classes, versions.',
    '`predict.py`: a program for image files, of 59 lines. It decodes ordinary files to the same '
    'pixels as the training did: orientation, transparency on white, 16 bits of grey, size.',
)

_PREDICT = """\
```
pip install {packages} numpy pillow
python predict.py photo.jpg another.png
```

It prints a line of JSON for each file, with the probabilities of the classes or with an error."""

_STABLEHLO = """\
In a program of your own with JAX:

```python
import jax
from jax import export

model = export.deserialize(bytearray(open('model.stablehlo', 'rb').read()))
found = jax.jit(model.call)(images)  # uint8[n, {height}, {width}, {channels}], any n
found['probabilities'], found['logits']  # float32[n, {classes}]
```

On a CPU some versions of XLA return wrong numbers for some networks, whoever compiles them.
`predict.py` compiles with the option `cpu_options` of `preprocessing.json`, which prevents this;
so does `jax.jit(model.call, compiler_options=...)`."""

_ONNX = """\
With ONNX Runtime:

```python
import onnxruntime

session = onnxruntime.InferenceSession('model.onnx')
logits, probabilities = session.run(['logits', 'probabilities'], {{'images': images}})
```

`images` is uint8[n, {height}, {width}, {channels}] for any n."""

_INSIDE = (
    'Standardisation, and the temperature of a calibration, are inside of the program: images go '
    'in as they are, with numbers from 0 (black) to 255 (white).'
)


def write(formats: Sequence[str], about: dict[str, Any]) -> list[str]:
    """Returns the paragraphs of the part, in Markdown.

    Args:
        formats: of the network, keys of folder.FORMATS.
        about: what preprocessing.json holds.
    """
    height, width, channels = about['image_shape']
    fields = {
        'height': height,
        'width': width,
        'channels': channels,
        'classes': len(about['classes']),
        'jax': '.'.join(map(str, about['jax_at_least'])),
    }
    lines = [_FILES[name].format(**fields) for name in formats]
    parts = ['## Use', '\n'.join(f'- {line}' for line in [*lines, *_ALWAYS])]
    programs = [name for name in formats if name in ('stablehlo', 'onnx')]
    if programs:
        packages = 'jax flatbuffers' if 'stablehlo' in programs else 'onnxruntime'
        parts.append(_PREDICT.format(packages=packages))
    parts += [
        template.format(**fields)
        for name, template in (('stablehlo', _STABLEHLO), ('onnx', _ONNX))
        if name in formats
    ]
    return [*parts, _INSIDE] if programs else parts
