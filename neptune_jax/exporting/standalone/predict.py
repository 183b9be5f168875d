"""Prints a line of JSON for each image: python predict.py FILE... README.md says what it needs."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

STABLEHLO, ONNX = (Path(__file__).with_name(f'model.{kind}') for kind in ('stablehlo', 'onnx'))
ABOUT = json.loads(STABLEHLO.with_name('preprocessing.json').read_text())
RULE, (HEIGHT, WIDTH, CHANNELS) = ABOUT['conversion'], ABOUT['image_shape']
RESIZE = {'stretch': Image.Image.resize, 'crop': ImageOps.fit, 'pad': ImageOps.pad}


def read(path):  # returns uint8[1, HEIGHT, WIDTH, CHANNELS]
    with Image.open(path, formats='BMP GIF JPEG PNG PPM TIFF WEBP'.split()) as image:
        if image.width * image.height > RULE['max_pixels']:
            raise ValueError(f'{image.width}x{image.height} pixels are too many')
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in 'IF':  # numbers of more than 8 bits
        pixels = np.rint(np.asarray(image) * (255 / ABOUT['white_16']))
        if pixels.min() < 0 or pixels.max() > 255 or not image.mode.startswith('I;16'):
            raise ValueError(f'not numbers of 16 bits from 0 to {ABOUT["white_16"]}')
        image = Image.fromarray(pixels.astype(np.uint8))
    elif 'A' in image.getbands() or 'transparency' in image.info:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    image = image.convert({1: 'L', 3: 'RGB'}[CHANNELS])
    image = RESIZE[RULE['resize']](image, (WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(1, HEIGHT, WIDTH, CHANNELS)


if STABLEHLO.is_file() and find_spec('jax') and find_spec('flatbuffers'):
    import jax.export

    if [int(n) for n in jax.__version__.split('.')[:2]] < ABOUT['jax_at_least']:
        sys.exit(f'error: {STABLEHLO} needs a newer JAX than {jax.__version__}: see README.md')
    exported = jax.export.deserialize(bytearray(STABLEHLO.read_bytes()))
    lowered = jax.jit(exported.call).lower(np.zeros((1, HEIGHT, WIDTH, CHANNELS), np.uint8))
    try:  # on a CPU, leave out fusions of which some versions of XLA return wrong numbers
        run = lowered.compile(ABOUT['cpu_options'] if jax.default_backend() == 'cpu' else {})
    except Exception:  # a version without this option
        run = lowered.compile()
elif ONNX.is_file() and find_spec('onnxruntime'):
    import onnxruntime

    session = onnxruntime.InferenceSession(ONNX, providers=['CPUExecutionProvider'])
    run = lambda x: {'probabilities': session.run(['probabilities'], {'images': x})[0]}
else:
    sys.exit('error: install jax and flatbuffers, or onnxruntime: see README.md')
for path in sys.argv[1:]:
    try:
        found = np.asarray(run(read(path))['probabilities'])[0].tolist()
        row = {'probabilities': dict(zip(ABOUT['classes'], found, strict=True))}
    except Exception as error:
        row = {'error': str(error)}
    print(json.dumps({'file': path} | row))
