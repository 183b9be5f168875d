"""Exported models: what they predict in processes without this package, and what is refused."""

import dataclasses
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax.traverse_util import flatten_dict
from jax import export
from markdown_it import MarkdownIt
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save
from scipy.stats import binomtest

from neptune_jax import experiment as experiments
from neptune_jax.errors import UserError
from neptune_jax.exporting import card, checking, folder
from neptune_jax.inference.exported import ExportedPredictor
from neptune_jax.inference.predictor import Predictor
from neptune_jax.learning import losses
from neptune_jax.runs import files, reader

NAMES = ['a|b', '*x* _y_ `z`', '<b>&amp;</b>', '# [l](u)', 'two\nlines', '\\', '$1$ :cat: ~~s~~']


@pytest.fixture(scope='module')
def predictor(finished_run):
    return Predictor.from_run(finished_run)


@pytest.fixture(scope='module')
def exported(predictor, tmp_path_factory):
    """The folder of an export in all formats, which nobody changes."""
    out = tmp_path_factory.mktemp('exported') / 'model'
    folder.write(predictor, out, list(folder.FORMATS))
    return out


@pytest.fixture
def own(exported, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(exported, tmp_path / 'model')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Ordinary image files of all kinds."""
    out = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (40, 30, 4), np.uint8)
    colour = Image.fromarray(np.ascontiguousarray(rgba[..., :3]))
    grey, deep = Image.fromarray(rgba[..., 0]), rng.integers(0, 2**16, (28, 28), np.uint16)
    colour.save(out / 'colour.jpg')
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        colour.save(out / f'turned{turn}.jpg', exif=exif)
    grey.resize((28, 28)).save(out / 'right_size.png')
    grey.save(out / 'grey.bmp')
    grey.convert('1').save(out / 'bits.png')
    colour.convert('CMYK').save(out / 'cmyk.jpg')
    colour.quantize(9).save(out / 'palette.gif', transparency=3)
    colour.save(out / 'one_colour_is_transparent.png', transparency=colour.getpixel((1, 1)))
    Image.fromarray(rgba).save(out / 'transparent.webp', lossless=True)
    Image.fromarray(rgba[..., :2].copy(), 'LA').save(out / 'grey_and_transparent.png')
    Image.fromarray(deep).save(out / '16_bits.png')
    Image.fromarray(deep).save(out / '16_bits.tif')
    colour.resize((300, 31)).save(out / 'wide.png')
    return sorted(out.iterdir())


def load_program(path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['predict.py'])
    return runpy.run_path(str(path))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('resize', ['stretch', 'crop', 'pad'])
def test_the_program_decodes_to_the_same_bits(
    predictor, exported, pictures, monkeypatch, resize, channels
):
    program = load_program(exported / 'predict.py', monkeypatch)
    program['RULE']['resize'] = resize
    program['read'].__globals__['CHANNELS'] = channels
    conversion = predictor.conversion._replace(resize=resize, channels=channels)
    expected = dataclasses.replace(predictor, conversion=conversion)
    for path in pictures:
        np.testing.assert_array_equal(program['read'](path)[0], expected.read(path), path.name)


@pytest.mark.parametrize('name', ['stablehlo', 'onnx'])
def test_a_process_without_this_package_predicts_the_same(predictor, exported, pictures, name):
    absent = {'stablehlo': ['neptune_jax', 'flax', 'onnxruntime'], 'onnx': ['neptune_jax', 'jax']}
    found = checking.run_program(exported, pictures, absent[name])
    expected = predictor(np.stack([predictor.read(path) for path in pictures]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match='install jax and flatbuffers, or onnxruntime'):
        checking.run_program(exported, pictures, ['jax', 'onnxruntime'])


def test_the_program_is_short():
    path = Path(folder.__file__).parent / 'standalone/predict.py'
    assert len(path.read_text().splitlines()) < 60


def test_an_unreadable_file_is_a_row_with_an_error(exported, tmp_path):
    (tmp_path / 'no.png').write_text('no picture')
    (tmp_path / 'page.eps').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    command = [sys.executable, exported / 'predict.py', 'no.png', 'page.eps', 'missing.png']
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [row['file'] for row in rows] == ['no.png', 'page.eps', 'missing.png']
    # Pillow would hand the second file to Ghostscript.
    assert ['cannot identify' in row['error'] for row in rows] == [True, True, False]
    assert (process.returncode, process.stderr) == (0, '')


def test_an_exported_predictor_stands_for_that_of_the_run(predictor, exported, pictures):
    found = ExportedPredictor.from_export(exported)
    for name in ('classes', 'image_shape', 'conversion', 'inputs', 'temperature', 'step'):
        assert getattr(found, name) == getattr(predictor, name)
    images = np.stack([predictor.read(path) for path in pictures])
    np.testing.assert_array_equal(images[0], found.read(pictures[0]))
    for size in (1, 5, 64):
        np.testing.assert_allclose(found(images, size), predictor(images), rtol=0, atol=1e-6)
    assert found(images[:0]).shape == (0, 10)
    logits = jax.jit(found.logits)({}, images)
    expected = jax.jit(predictor.logits)(predictor.variables, images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_a_calibrated_one_vs_rest_model_is_exported_as_such(predictor, tmp_path, pictures):
    calibrated = dataclasses.replace(predictor, temperature=2.5, loss=losses.bce, _programs={})
    folder.write(calibrated, tmp_path / 'model', ['stablehlo', 'onnx'])
    checked = checking.check(calibrated, tmp_path / 'model', ['stablehlo', 'onnx'])
    assert [each.is_equal for each in checked] == [True, True]
    found = ExportedPredictor.from_export(tmp_path / 'model')
    assert (found.temperature, found.loss) == (2.5, losses.bce)
    images = calibrated.read(pictures[0])[None]
    logits = np.asarray(jax.jit(predictor.logits)(predictor.variables, images), np.float64)
    np.testing.assert_allclose(found(images), 1 / (1 + np.exp(-logits / 2.5)), rtol=1e-4)


def test_the_program_for_all_platforms_has_plain_convolutions(exported):
    program = export.deserialize(bytearray((exported / 'model.stablehlo').read_bytes()))
    assert program.platforms == ('cpu', 'cuda', 'rocm', 'tpu')
    text = program.mlir_module()
    # Two layers. On a CPU the package computes the first as a sum of products.
    assert text.count('stablehlo.convolution(') == 2 * len(program.platforms)


def test_no_file_names_this_machine(exported, finished_run, data_dir):
    for path in exported.iterdir():
        content = path.read_bytes()
        for name in (Path.cwd(), Path(jax.__file__).parent, finished_run.parent, data_dir):
            assert str(name).encode() not in content, path.name


def test_a_program_of_a_newer_jax_or_another_export_is_refused_in_a_line(own, pictures):
    about = files.read_json(own / 'preprocessing.json')
    about['versions']['jax'], about['jax_at_least'] = '99.1.0', [99, 1]
    files.write_json(own / 'preprocessing.json', about)
    with pytest.raises(UserError, match=r"JAX 99\.1\.0 and cannot be .*'jax>=99\.1\.0'"):
        ExportedPredictor.from_export(own)
    with pytest.raises(UserError, match=r'model\.stablehlo needs a newer JAX than'):
        checking.run_program(own, pictures[:1])
    about['versions']['jax'] = '0.1.0'
    files.write_json(own / 'preprocessing.json', about)
    program = own / 'model.stablehlo'
    program.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(UserError, match='is damaged or from another export'):
        ExportedPredictor.from_export(own)
    program.unlink()
    with pytest.raises(UserError, match='is missing; export the run again with stablehlo'):
        ExportedPredictor.from_export(own)
    with pytest.raises(UserError, match='holds no exported model'):
        ExportedPredictor.from_export(own.parent)
    for content in ('{', '[]', '{"temperature": 1}'):
        (own / 'preprocessing.json').write_text(content)
        with pytest.raises(UserError, match=r'preprocessing\.json is damaged \('):
            ExportedPredictor.from_export(own)


def test_the_weights_lie_in_onnx_and_safetensors_by_their_paths(predictor, exported):
    own = flatten_dict(predictor.variables, sep='/')
    with safe_open(exported / 'model.safetensors', 'np') as file:
        metadata = file.metadata()
        assert set(file.keys()) == {*own}
    stored = load_file(exported / 'model.safetensors')
    jax.tree.map(np.testing.assert_array_equal, stored, own)
    assert json.loads(metadata['config'])['model']['features'] == [4, 8]
    assert tuple(json.loads(metadata['classes'])) == predictor.classes
    model = onnx.load(exported / 'model.onnx')
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert own.keys() <= arrays.keys()
    kernel = own['params/Conv_1/kernel']  # in ONNX's order
    np.testing.assert_array_equal(arrays['params/Conv_1/kernel'], kernel.transpose(3, 2, 0, 1))
    contents = [(array.dtype.str, array.shape, array.tobytes()) for array in arrays.values()]
    assert len(set(contents)) == len(contents)


def test_a_new_run_starts_from_exported_weights(config, predictor, exported):
    config.checkpoint.restore_from = str(exported / 'model.safetensors')
    experiment = experiments.create(config)
    state = experiments.init_state(experiment, experiments.read_initial_weights(experiment))
    jax.tree.map(np.testing.assert_array_equal, state.params, predictor.variables['params'])


def test_a_check_finds_a_difference(predictor, own, capsys):
    model = onnx.load(own / 'model.onnx')
    (bias,) = [each for each in model.graph.initializer if each.name == 'params/Dense_0/bias']
    changed = onnx.numpy_helper.to_array(bias) + 0.001 * np.arange(10, dtype=np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    onnx.save(model, own / 'model.onnx')
    (own / 'model.safetensors').write_bytes(
        save({name: array + 1 for name, array in load_file(own / 'model.safetensors').items()})
    )
    found = checking.check(predictor, own, list(folder.FORMATS))
    assert [each.is_equal for each in found] == [True, False, False]
    assert found[2].difference == 1


def test_what_an_export_would_overwrite(predictor, own, tmp_path, monkeypatch):
    before = {path.name: path.stat().st_ino for path in own.iterdir()}
    folder.check_out(own)
    folder.write(predictor, own, ['safetensors'])
    assert {path.name for path in own.iterdir()} == before.keys() - {
        'model.onnx',
        'model.stablehlo',
    }
    (own / 'notes.txt').write_text('mine')
    with pytest.raises(UserError, match=r'holds something else \(notes\.txt\)'):
        folder.check_out(own)
    with pytest.raises(UserError, match='holds something else'):
        folder.write(predictor, own, ['safetensors'])
    assert (own / 'notes.txt').read_text() == 'mine'
    (own / 'notes.txt').unlink()

    def fail(path, content):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(Path, 'write_bytes', fail)
    with pytest.raises(UserError, match=r'cannot be written: .*No space left'):
        folder.write(predictor, own, ['safetensors'])
    assert (own / 'model.safetensors').is_file()
    assert [path.name for path in tmp_path.iterdir()] == ['model']
    with pytest.raises(UserError, match='is a file; name a folder'):
        folder.check_out(own / 'README.md')


class Sorting(nn.Module):
    """A network of one's own with an operation that ONNX has not."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes)(jnp.sort(x.reshape(x.shape[0], -1)))


class Counting(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def test_a_network_that_cannot_be_exported_is_refused_in_a_line(predictor, tmp_path):
    variables = {
        'params': {'Dense_0': {'kernel': np.ones((784, 10), np.float32), 'bias': np.ones(10)}}
    }

    def refused(module, formats, message):
        other = dataclasses.replace(predictor, model=module, variables=variables)
        with pytest.raises(UserError, match=message):
            folder.write(other, tmp_path / 'model', formats)
        assert not (tmp_path / 'model').exists()

    refused(Sorting(10), ['onnx'], 'uses the operation sort, which has no translation to ONNX')
    refused(Counting(10), ['onnx'], r'cannot be exported for any number of images \(.*shape\[0\]')
    refused(Counting(10), ['stablehlo'], 'cannot be exported for any number of images')
    with pytest.raises(UserError, match="--formats='tflite' is unknown; choose one of: stablehlo"):
        folder.check_formats(['tflite'])


def test_the_card_has_the_figures_of_the_test_and_any_class_name(predictor, finished_run, tmp_path):
    workdir = shutil.copytree(finished_run, tmp_path / 'run*')
    named = dataclasses.replace(
        predictor, workdir=str(workdir), classes=(*NAMES, *predictor.classes[len(NAMES) :])
    )
    about = folder.describe(named, {})
    text = card.write(named, list(folder.FORMATS), about)
    tokens = MarkdownIt('commonmark').enable(['table', 'strikethrough']).parse(text)
    contents = [token for token in tokens if token.type == 'inline']
    assert not [
        c for token in contents for c in token.children if c.type.startswith(('html', 'link'))
    ]
    cells = [''.join(child.content for child in contents[i].children) for i in range(len(contents))]
    assert cells[0] == 'run*'
    first = cells.index('95% interval of the recall') + 2
    assert cells[first::6][: len(NAMES)] == [' '.join(name.split()) for name in NAMES]

    test = reader.read_summary(workdir)['test']
    with np.load(workdir / 'artifacts/predictions.npz') as stored:
        correct = stored['label'] == stored['prediction']
        sneakers = correct[stored['label'] == 7]
    for name, hits in (('accuracy', correct), ('Sneaker', sneakers)):
        interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method='wilson')
        row = cells[cells.index(name) :][:6]
        assert f'{interval.low:.4f} to {interval.high:.4f}' in row
        assert f'{hits.mean():.4f}' in row
    assert f'{test["f1_macro"]:.4f}' == cells[cells.index('f1_macro') + 1]
    data = files.read_json(workdir / 'environment.json')['data']
    assert all(digest in text for digest in data['sha256'].values())
    assert all(f'{size:,}' in cells for size in data['sizes'].values())


def test_the_card_of_an_untested_checkpoint_has_no_figures(finished_run):
    predictor = Predictor.from_run(finished_run, '30')
    text = card.write(predictor, ['onnx'], folder.describe(predictor, {}))
    assert 'The run has no test of this checkpoint' in text
    assert 'accuracy' not in text


def run_command(*arguments):
    command = [sys.executable, '-m', 'neptune_jax.export', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_line(finished_run, tmp_path):
    out = tmp_path / 'new' / 'model'
    process = run_command(finished_run, f'--out={out}', '--check', '--format=json')
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found['out'] == str(out.resolve())
    assert {row['file'] for row in found['files']} == {path.name for path in out.iterdir()}
    assert {row['file'] for row in found['files'] if row.get('equal')} == {*folder.FORMATS.values()}
    assert (out / 'classes.txt').read_text().splitlines()[9] == 'Ankle boot'
    assert os.stat(out).st_mode & 0o777 == 0o777 & ~umask()

    for arguments, message in (
        ([finished_run], 'give one run and a folder: '),
        ([tmp_path, f'--out={tmp_path / "x"}'], 'holds no run: there is no config.json'),
        ([finished_run, f'--out={tmp_path}'], 'holds something else (new); name a new folder'),
    ):
        process = run_command(*arguments)
        assert process.returncode == 2
        assert process.stderr.startswith('error: ') and message in process.stderr
        assert process.stderr.count('\n') == 1


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
