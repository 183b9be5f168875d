"""The folder of an exported model: which files it holds, and how it is written."""

import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import unflatten_dict

from neptune_jax.data.sources import decoding
from neptune_jax.devices import compiling
from neptune_jax.errors import UserError, check_choice, one_line
from neptune_jax.exporting import card
from neptune_jax.inference.exported import ABOUT, LOSS, STABLEHLO
from neptune_jax.inference.predictor import Predictor
from neptune_jax.learning import losses
from neptune_jax.runs import files, reader

FORMATS = {'stablehlo': STABLEHLO, 'onnx': 'model.onnx', 'safetensors': 'model.safetensors'}
PROGRAM = 'predict.py'
_OTHERS = ('README.md', 'classes.txt', ABOUT, PROGRAM)
# Fields of a config that name folders of this machine. An exported model may go to other people.
_PLACES = {
    *('data.dir', 'data.archive_dir', 'data.path', 'data.labels_path'),
    'checkpoint.restore_from',
}
_PACKAGES = ('neptune_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'pillow')


def check_formats(names: Sequence[str]) -> list[str]:
    """Returns the formats in the order of FORMATS; raises UserError for none or an unknown one."""
    for name in names or ['']:
        check_choice(name, FORMATS, '--formats')
    return [name for name in FORMATS if name in names]


def check_out(out: str | Path) -> None:
    """Raises UserError unless `out` is free, an empty folder, or an exported model and no more."""
    out = Path(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f'--out={out} is a file; name a folder')
    try:
        names = set(os.listdir(out))
    except OSError as error:
        raise UserError(f'--out={out} cannot be read: {error}') from error
    others = sorted(names - {*FORMATS.values(), *_OTHERS})
    if others or (names and ABOUT not in names):
        raise UserError(
            f'--out={out} holds something else ({(others or sorted(names))[0]}); name a new folder'
        )


def write(predictor: Predictor, out: str | Path, formats: Sequence[str]) -> dict[str, int]:
    """Writes the folder of an exported model, as a whole or not at all.

    An earlier export in its place is replaced.

    Args:
        predictor: of the run.
        out: the folder, as `check_out` allows it.
        formats: keys of FORMATS.

    Returns:
        The size of each file in bytes.

    Raises:
        UserError: a library is missing, a format cannot hold the network, or the folder cannot be
            written.
    """
    contents = {FORMATS[name]: _WRITERS[name](predictor) for name in formats}
    about = describe(predictor, contents)
    program = Path(__file__).parent / 'standalone' / PROGRAM
    # A folder's name may hold bytes that are no characters; they are written as they are.
    classes = ''.join(f'{" ".join(name.splitlines())}\n' for name in predictor.classes)
    contents |= {
        'README.md': card.write(predictor, formats, about).encode('utf-8', 'backslashreplace'),
        'classes.txt': classes.encode('utf-8', 'surrogateescape'),
        ABOUT: (files.dumps(about, indent=2) + '\n').encode(),
        PROGRAM: program.read_bytes(),
    }
    try:
        with _replaced(Path(out)) as folder:
            for name, content in contents.items():
                (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f'--out={out} cannot be written: {error}') from error
    return {name: len(content) for name, content in contents.items()}


def outputs(predictor: Predictor) -> Callable[[dict, jax.Array], dict[str, jax.Array]]:
    """Returns a pure function from (variables, images uint8[B, H, W, C]) to what a model returns.

    That is `logits` and `probabilities`, float32[B, K].
    """

    def function(variables, images):
        try:
            logits = predictor.logits(variables, images)
        except Exception as error:  # of a network of one's own
            raise UserError(
                f'the network cannot be exported for any number of images ({one_line(error)}); it '
                'must take that number from images.shape[0]'
            ) from error
        return {
            'logits': logits,
            'probabilities': losses.probabilities(logits, predictor.loss),
        }

    return function


def describe(predictor: Predictor, contents: dict[str, bytes]) -> dict[str, Any]:
    """Returns what preprocessing.json holds: all that one needs beside the network's files."""
    conversion = predictor.conversion
    white = conversion.white or conversion.whites.get('uint16', decoding.WHITE_16)
    sigmoid = predictor.loss is LOSS['sigmoid']
    versions = dict(_versions())
    return {
        'classes': list(predictor.classes),
        'image_shape': list(predictor.image_shape),
        'conversion': conversion.to_dict(),
        'white_16': white,
        'standardize': predictor.standardizer.to_dict(),
        'temperature': predictor.temperature,
        'probabilities': 'sigmoid' if sigmoid else 'softmax',
        'inputs': predictor.inputs,
        'run': Path(predictor.workdir).resolve().name,
        'step': predictor.step,
        'versions': versions,
        'jax_at_least': [int(part) for part in versions['jax'].split('.')[:2]],
        'cpu_options': compiling.SEPARATE,
        'sha256': {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }


def _versions():
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # this package may run from a checkout
            yield name, metadata.version(name)


def _write_stablehlo(predictor):
    module = _import('stablehlo', 'flatbuffers')
    return module.write(outputs(predictor), predictor.variables, predictor.image_shape)


def _write_onnx(predictor):
    module = _import('onnx_writer.model', 'onnx')
    return module.write(
        outputs(predictor), predictor.variables, predictor.image_shape, _texts(predictor)
    )


def _write_safetensors(predictor):
    return _import('weights', 'safetensors').write(predictor.variables, _texts(predictor))


_WRITERS = {
    'stablehlo': _write_stablehlo,
    'onnx': _write_onnx,
    'safetensors': _write_safetensors,
}


def _import(module, library):
    """Imports a module of this folder that needs an optional library."""
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f'this format needs {library}: pip install "neptune_jax[export]"'
        ) from error
    return importlib.import_module(f'neptune_jax.exporting.{module}')


def _texts(predictor):
    """Returns the metadata of a file that may be found without the others."""
    config = files.flatten(reader.read_config(predictor.workdir), '.')
    kept = {
        name: '' if name in _PLACES else value
        for name, value in config.items()
        if not name.startswith('neptune.')
    }
    config = unflatten_dict(kept, sep='.')
    return {'config': files.dumps(config), 'classes': files.dumps(predictor.classes)}


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """Yields a new folder beside `out`, and puts it in the place of `out` at the end."""
    out = Path(os.path.realpath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
    try:
        yield new
        umask = os.umask(0)
        os.umask(umask)
        new.chmod(0o777 & ~umask)
        if out.exists():
            check_out(out)  # nobody has put a file there in the meantime
            old = new.with_name(f'{new.name}.old')
            out.rename(old)
            new.rename(out)
            shutil.rmtree(old)
        else:
            new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
