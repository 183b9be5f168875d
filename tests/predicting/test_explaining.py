"""The occlusion map finds what a model answers to; pictures of any image, under safe names."""

import numpy as np
import pytest
from PIL import Image

from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError
from neptune_jax.predicting import explaining
from neptune_jax.predicting.rows import Prediction


def looks_at(rows, columns):
    """A model of two classes: how bright one place is decides alone."""

    def predict(images):
        predict.calls += 1
        bright = images[:, rows, columns].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - bright, bright], axis=1).astype(np.float32)

    predict.calls = 0
    return predict


@pytest.mark.parametrize('shape', [(24, 36, 3), (28, 28, 1), (10, 60, 1)])
def test_the_map_is_high_where_the_model_looks_and_zero_elsewhere(shape):
    rows, columns = slice(4, 6), slice(2, 5)
    predict = looks_at(rows, columns)
    image = np.full(shape, 255, np.uint8)
    found = explaining.occlusion_map(predict, image, 0.0)
    assert predict.calls == 1
    assert found.shape == shape[:2]
    assert found.dtype == np.float32
    assert found[rows, columns].min() > 0
    step = -(-max(shape[:2]) // explaining.STEPS)
    near = np.zeros(shape[:2], bool)
    near[max(0, 4 - step) : 6 + step, max(0, 2 - step) : 5 + step] = True
    assert near.ravel()[found.argmax()]
    far = np.ones(shape[:2], bool)
    far[max(0, 4 - 2 * step) : 6 + 2 * step, max(0, 2 - 2 * step) : 5 + 2 * step] = False
    assert far.any()
    np.testing.assert_array_equal(found[far], 0)


def test_the_map_against_its_definition():
    image = np.random.default_rng(0).integers(0, 256, (10, 8, 1)).astype(np.uint8)
    predict = looks_at(slice(2, 7), slice(1, 5))
    top = predict(image[None])[0].argmax()
    total, count = np.zeros((10, 8)), np.zeros((10, 8))
    for y in (0, 2, 5, 8):  # edges at 0, 2, 5, 8 (rounded), 10
        for x in (0, 2, 4, 6):
            bottom = {0: 5, 2: 8, 5: 10}.get(y)
            right = {0: 4, 2: 6, 4: 8}.get(x)
            if bottom and right:
                covered = image.copy()
                covered[y:bottom, x:right] = 102
                drop = predict(image[None])[0, top] - predict(covered[None])[0, top]
                total[y:bottom, x:right] += drop
                count[y:bottom, x:right] += 1
    found = explaining.occlusion_map(predict, image, 0.4, 4)
    np.testing.assert_allclose(found, total / count, rtol=1e-5, atol=1e-6)


def test_an_image_of_one_pixel():
    image = np.full((1, 1, 1), 255, np.uint8)
    found = explaining.occlusion_map(looks_at(slice(0, 1), slice(0, 1)), image, 0.0)
    np.testing.assert_array_equal(found, [[1]])


def test_names_of_pictures_are_safe_and_differ():
    files = ['a/x.png', 'b/x.png', 'a/x.jpg', '../../x', 'x' * 300, 'Füchse\n?.png', '\udcff', '.']
    names = [explaining.picture_name(file) for file in files]
    assert len(set(names)) == len(files)
    for name in names:
        assert set(name) <= set('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.')
        assert len(name) < 100
        assert name.count('.') == 1
    assert names[0].startswith('x_')


class Model:
    """What an Explainer asks of a Predictor."""

    def __init__(self, shape):
        self.conversion = Conversion(shape[:2], shape[2], 'stretch')
        self.inputs = {}
        self._predict = looks_at(slice(0, 4), slice(0, 4))

    def __call__(self, images, batch_size):
        assert len(images) == batch_size
        return self._predict(images)


@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 48, 3)])
@pytest.mark.parametrize('mode', ['L', 'RGBA', 'I;16', '1'])
def test_a_picture_of_any_image(tmp_path, shape, mode):
    file = tmp_path / 'given $x_1$ <b>.png'
    Image.new(mode, (300, 20)).save(file)
    image = np.zeros(shape, np.uint8)
    folder = str(tmp_path / 'new/out')
    explainer = explaining.Explainer(Model(shape), folder)
    prediction = Prediction(str(file), [('a $class$', 0.9), ('other', 0.1)])
    explainer(prediction, image)
    (path,) = (tmp_path / 'new/out').iterdir()
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        assert np.asarray(picture.convert('L')).std() > 10
    with pytest.raises(UserError, match='has the picture of'):
        explaining.check_new(folder, [str(file)], resume=False)
    explaining.check_new(folder, [str(file)], resume=True)
    with pytest.raises(UserError, match='is no folder'):
        explaining.check_new(str(file), [str(file)], resume=False)
