"""Figures show what they should: the shades, numbers and names in them, not only their size."""

import io
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from neptune_jax.reporting import figures, names

ODD_NAMES = (
    '$5_$10', r'$\frac$', '<b>', '"quoted", comma', 'line\nbreak', '猫と犬', '😀', 'שלום', '[red]',
    'x' * 200, r'a^{b}_c', '%s {0}', 'naïve',
)  # fmt: skip


def drawn(figure, dpi=60):
    file = io.BytesIO()
    figure.savefig(file, dpi=dpi)
    return np.asarray(Image.open(file).convert('RGB'))


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda part: hasattr(part, 'get_text'))]


def test_a_confusion_matrix_shows_counts_and_shares():
    confusion = np.array([[3, 1, 0], [0, 7, 0], [2, 2, 4]])
    figure = figures.confusion_matrix(confusion, ['cat', 'dog', 'owl'])
    drawn(figure)
    axes = figure.axes[0]
    (image,) = axes.get_images()
    shares = [[3 / 4, 1 / 4, 0], [0, 1, 0], [1 / 4, 1 / 4, 1 / 2]]
    np.testing.assert_allclose(image.get_array(), shares)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    # Positions are (column, row); a zero has no number.
    assert cells == {(0, 0): '3', (1, 0): '1', (1, 1): '7', (0, 2): '2', (1, 2): '2', (2, 2): '4'}
    assert [label.get_text() for label in axes.get_yticklabels()] == ['cat', 'dog', 'owl']
    assert [label.get_text() for label in axes.get_xticklabels()] == ['cat', 'dog', 'owl']
    assert (axes.get_ylabel(), axes.get_xlabel()) == ('label', 'prediction')


def test_more_than_sixty_classes_are_an_image_and_a_table_of_mistakes():
    confusion = np.diag(np.full(61, 50))
    confusion[3, 7], confusion[7, 3] = 40, 5
    figure = figures.confusion_matrix(confusion, [f'class{i}' for i in range(61)])
    drawn(figure)
    (image,) = figure.axes[0].get_images()
    assert image.get_array()[3, 7] == pytest.approx(40 / 90)
    assert not figure.axes[0].texts
    table = [text.get_text() for text in figure.axes[-1].texts]
    assert table[4:12] == [
        '3: class3', '7: class7', '40', '44%', '7: class7', '3: class3', '5', '9%',
    ]  # fmt: skip


def test_a_large_matrix_keeps_each_mistake_visible():
    confusion = np.diag(np.full(2500, 4))
    confusion[2499, 1234] = 4
    figure = figures.confusion_matrix(confusion, ['a'] * 2500)
    (image,) = figure.axes[0].get_images()
    cells = np.asarray(image.get_array())
    assert max(cells.shape) <= 1000
    assert cells[2499 // 3, 1234 // 3] == 0.5
    assert (cells > 0).sum() == 1 + len(cells)


@pytest.mark.parametrize('count', [400, 1000])
def test_the_size_of_the_picture_is_bounded(count):
    confusion = np.diag(np.ones(count, int))
    width, height = figures.confusion_matrix(confusion, ['a'] * count).get_size_inches()
    assert width * height * 120**2 < 4e6


def test_names_are_shown_as_they_are():
    size = len(ODD_NAMES)
    figure = figures.confusion_matrix(np.ones((size, size), int), ODD_NAMES)
    drawn(figure)  # the tests turn warnings, as of missing glyphs, into errors
    shown = texts(figure)
    for name in ('$5_$10', r'$\frac$', '<b>', '"quoted", comma', '[red]', r'a^{b}_c', '%s {0}'):
        assert name in shown
    assert r'line\nbreak' in shown
    parsed = [
        text.get_text()
        for text in figure.findobj(lambda part: hasattr(part, 'get_parse_math'))
        if text.get_text() in ODD_NAMES and text.get_parse_math()
    ]
    assert parsed == []


def test_a_name_of_dollars_is_drawn_like_other_characters():
    """As a formula, '$a$' would be a narrow, slanted a; as text it is as wide as '#a#'."""
    widths = []
    for name in ('$a$', '#a#'):
        pixels = drawn(figures.confusion_matrix(np.eye(2, dtype=int), [name, 'b']))
        dark = (pixels[: pixels.shape[0] // 2, : pixels.shape[1] // 3] < 128).all(axis=-1)
        widths.append(np.ptp(np.flatnonzero(dark.any(axis=0))))
    assert abs(widths[0] - widths[1]) <= 3


@pytest.mark.parametrize(
    ('name', 'limit', 'shown'),
    [
        ('cat', 5, 'cat'),
        ('abcdefghij', 5, 'ab…ij'),
        ('猫猫猫猫', 5, '猫…猫'),  # two columns each
        ('a\tb', 9, r'a\tb'),
        ('', 5, ''),
    ],
)
def test_long_names_lose_their_middle(name, limit, shown):
    assert names.shown(name, limit) == shown


@pytest.fixture
def data():
    """Nine images of 4x4, image i of grey level 20 i; the labels are i mod 3."""
    images = np.repeat(np.arange(9, dtype=np.uint8) * 20, 16).reshape(9, 4, 4, 1)
    return types.SimpleNamespace(
        class_names=('cat', 'dog', 'owl'),
        labels=np.arange(9) % 3,
        read_images=lambda examples: images[examples],
    )


def test_the_worst_mistakes_are_those_with_the_highest_loss(data):
    examples = np.arange(3, 9)  # labels 0 1 2 0 1 2
    outputs = {
        'prediction': np.array([0, 2, 2, 1, 0, 0]),  # the second, fourth, fifth and sixth are wrong
        'loss': np.array([9.0, 1.0, 8.0, 3.0, 2.0, 4.0]),
        'confidence': np.array([0.9, 0.5, 0.9, 0.75, 0.6, 0.8]),
    }
    figure = figures.worst_mistakes(data, examples, outputs)
    drawn(figure)
    (axes,) = figure.axes
    levels = [int(np.asarray(image.get_array()).max()) for image in axes.get_images()]
    assert levels == [160, 120, 140, 80]
    captions = [text.get_text() for text in axes.texts]
    assert captions[0].startswith('4 of 6 test examples are wrong')
    assert captions[1:3] == ['cat 80%\nis owl (test #5)', 'dog 75%\nis cat (test #3)']


def test_a_reliability_diagram_shows_each_bin():
    """Bins of 1/15: one example at 0.5, four at 0.9 to 0.92 of which three are right."""
    labels = np.zeros(5, int)
    outputs = {
        'prediction': np.array([1, 0, 0, 0, 1]),
        'confidence': np.array([0.5, 0.9, 0.91, 0.92, 0.91], np.float32),
    }
    before = outputs | {'confidence': np.full(5, 0.99, np.float32)}
    figure = figures.reliability_diagram(labels, {'with': outputs, 'without': before}, 'test')
    drawn(figure)
    above, below = figure.axes
    after_line, before_line = (line for line in above.get_lines() if line.get_marker() == 'o')
    points = after_line.get_xydata()
    np.testing.assert_allclose(points[~np.isnan(points).any(axis=1)], [[0.5, 0], [0.91, 0.75]])
    points = before_line.get_xydata()
    np.testing.assert_allclose(points[~np.isnan(points).any(axis=1)], [[0.99, 0.6]])
    bars = {round(bar.get_x() * 15): bar.get_height() for bar in above.patches}
    assert (bars[7], bars[13], bars[14]) == (0, 0.75, 0)
    counts = {round(15 * text.get_position()[0] - 0.5): text.get_text() for text in below.texts}
    assert counts == {7: '1', 13: '4'}
    names = [text.get_text() for text in above.get_legend().get_texts()]
    # (1 * 0.5 + 4 * 0.16) / 5 and 0.99 - 0.6
    assert names == ['with: ECE 0.2280', 'without: ECE 0.3900']
    low, high = next(line.get_ydata() for line in above.get_lines() if line.get_linewidth() == 1)
    assert 0 <= low < high <= 1


def test_learning_curves_show_the_rows():
    rows = [
        {'step': 2, 'train/loss': 2.0, 'train/accuracy': 0.3, 'train/learning_rate': 0.1},
        {'step': 4, 'train/loss': 1.0, 'train/accuracy': 0.6, 'train/learning_rate': 0.05},
        {'step': 4, 'val/loss': 1.5, 'val/accuracy': 0.5},
    ]
    figure = figures.learning_curves(rows)
    drawn(figure)
    loss, accuracy, rate = figure.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in loss.get_lines()}
    assert curves == {'train': [[2, 2.0], [4, 1.0]], 'val': [[4, 1.5]]}
    assert [line.get_ydata().tolist() for line in accuracy.get_lines()] == [[0.3, 0.6], [0.5]]
    assert rate.get_lines()[0].get_ydata().tolist() == [0.1, 0.05]


def test_augmented_images_stand_beside_their_original():
    def batch(level, **more):
        return {'image': np.full((2, 4, 4, 1), level), 'label': np.array([1, 0])} | more

    mixed = batch(0.75, other_label=np.array([0, 1]), label_weight=np.array([0.25, 0.6]))
    figure = figures.augmentation(batch(0.25), [batch(0.5), mixed], ['cat', '$dog$'])
    drawn(figure)
    levels = [float(np.mean(axes.get_images()[0].get_array())) for axes in figure.axes]
    assert levels == [0.25, 0.5, 0.75] * 2
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ['$dog$', '$dog$', '25% $dog$\n75% cat', 'cat', 'cat', '60% cat\n40% $dog$']


def test_a_thousand_classes_take_little_memory():
    code = """
import numpy as np, resource
from neptune_jax.reporting import figures
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
confusion = np.random.default_rng(0).integers(0, 3, (1000, 1000))
figures.confusion_matrix(confusion, [f'class {i}' for i in range(1000)]).savefig('/dev/null',
    format='png', dpi=120)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == 'darwin' else 1024
    assert int(done.stdout) * unit < 300e6
