"""Predictions of image files: those of the test of the training, to the bit, in order."""

import contextlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from neptune_jax.data import dataset
from neptune_jax.inference.predictor import Predictor
from neptune_jax.predicting import outputs, prediction
from neptune_jax.runs import reader


@pytest.fixture(scope='module')
def test_files(finished_run, tmp_path_factory):
    """The test images of the run as PNG files, and two files that are no images among them."""
    data = dataset.load(ConfigDict(reader.read_config(finished_run)).data)
    images = data.read_images(data.splits['test'])
    folder = tmp_path_factory.mktemp('test_files')
    files = [str(folder / f'{number:03}.png') for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.squeeze(-1)).save(file)
    return files, images


class Collected:
    """An Output that keeps the predictions."""

    start = written = errors = 0

    def __init__(self):
        self.rows = []

    def write(self, predictions):
        self.rows += predictions


def predict(predictor, files, batch_size, **options):
    output = Collected()
    prediction.predict_files(
        predictor, files, output, top=10, batch_size=batch_size, progress=False, **options
    )
    return output.rows


def probabilities_of(predictor, rows):
    """Returns float32[n, K] in the order of the classes."""
    found = [[dict(row.top)[name] for name in predictor.classes] for row in rows]
    return np.array(found, np.float32)


@pytest.mark.parametrize('processes', [0, 2])
def test_files_get_the_probabilities_of_the_test_to_the_bit(finished_run, test_files, processes):
    files, _ = test_files
    predictor = Predictor.from_run(finished_run)
    rows = predict(predictor, files, 200, processes=processes)
    assert [row.file for row in rows] == files
    with np.load(finished_run / 'artifacts/predictions.npz') as stored:
        np.testing.assert_array_equal(probabilities_of(predictor, rows), stored['probabilities'])


def test_the_place_and_the_neighbours_do_not_change_the_bits(finished_run, test_files, tmp_path):
    files, images = test_files
    predictor = Predictor.from_run(finished_run)
    expected = predictor(images[:100], batch_size=32)
    (tmp_path / 'bad.png').write_text('no image')
    order = np.random.default_rng(0).permutation(100)
    mixed = [files[number] for number in order]
    mixed[10:10] = [str(tmp_path / 'bad.png')] * 3
    rows = predict(predictor, mixed, 32)
    assert [bool(row.error) for row in rows] == [False] * 10 + [True] * 3 + [False] * 90
    readable = [row for row in rows if not row.error]
    np.testing.assert_array_equal(probabilities_of(predictor, readable), expected[order])


def test_shards_and_a_continued_file_have_the_bytes_of_the_whole(
    finished_run, test_files, tmp_path
):
    files, _ = test_files

    def run(name, files=files, **options):
        path = tmp_path / name
        flags = {'checkpoint': 'best', 'resize': '', 'top': 3, 'batch_size': 64, 'processes': 0}
        flags |= {'out': str(path), 'form': 'text', 'resume': False, 'explain': None}
        assert prediction.predict_run(str(finished_run), files, **flags | options) == 0
        return path.read_bytes()

    whole = run('whole.csv')
    parts = [run(f'{start}.csv', files[start : start + 250]) for start in (0, 250)]
    assert parts[0] + parts[1].split(b'\n', 1)[1] == whole
    (tmp_path / 'cut.csv').write_bytes(whole[: len(whole) // 2])
    assert run('cut.csv', resume=True) == whole
    assert run('cut.csv', resume=True) == whole  # nothing is left to do


def test_the_batch_size_suits_the_images():
    size = prediction.default_batch_size
    assert [size((28, 28, 1), n) for n in (0, 1, 2, 3, 100, 256, 9999)] == [
        1,
        1,
        2,
        4,
        128,
        256,
        256,
    ]
    assert [size((64, 64, 3), n) for n in (80, 9999)] == [64, 64]
    assert size((224, 224, 3), 9999) == 32


def test_explanations_are_drawn_before_their_rows_and_only_for_new_ones(finished_run, test_files):
    files, images = test_files
    predictor, events = Predictor.from_run(finished_run), []

    class Continued(Collected):
        written = 5

        def write(self, predictions):
            events.append('rows')

    def explain(prediction, image):
        number = files.index(prediction.file)
        np.testing.assert_array_equal(image, images[number])
        events.append(number)

    prediction.predict_files(
        predictor, files[:10], Continued(), top=1, batch_size=8, explain=explain, progress=False
    )
    assert events == [5, 6, 7, 'rows', 8, 9, 'rows']


def test_the_next_batch_starts_before_the_last_one_is_fetched():
    events = []

    class Slow:
        image_shape = (1, 1, 1)

        def compiled(self, batch_size):
            return lambda batch: Result(batch)

    class Result:
        def __init__(self, batch):
            self.batch = batch.copy()
            events.append(f'start {batch[0, 0, 0, 0]}')

        def __array__(self, dtype=None, copy=None):
            events.append(f'fetch {self.batch[0, 0, 0, 0]}')
            return self.batch.reshape(-1, 1).astype(np.float32)

    images = [np.full((1, 1, 1), number, np.uint8) for number in range(5)]
    with contextlib.closing(prediction.predict(Slow(), iter(images), 2)) as found:
        assert [probabilities.ravel().tolist() for _, _, probabilities in found] == [
            [0, 1],
            [2, 3],
            [4],
        ]
    assert events == ['start 0', 'start 2', 'fetch 0', 'start 4', 'fetch 2', 'fetch 4']


def test_the_screen_shows_names_on_one_line_each(capsys):
    rows = [
        outputs.Prediction('a\nb.png', [('cat', 0.987), ('dog', 0.01)]),
        outputs.Prediction('longer.png', [], 'no image'),
    ]
    with outputs.open_output(
        None, 'text', 2, [row.file for row in rows], batch_size=2, resume=False
    ) as output:
        output.write(rows)
    assert output.errors == 1
    assert capsys.readouterr().out.splitlines() == [
        'a\\nb.png    cat 98.7%  dog 1.0%',
        'longer.png  error: no image',
    ]
