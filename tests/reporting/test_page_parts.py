"""Parts of the page against what they are computed from: axes, lines, importance, pictures."""

import base64
import io
import math
import re

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from neptune_jax.reporting import figures, page, records, tiling
from neptune_jax.reporting.page import charts, confusion, curves, importance, markup
from neptune_jax.reporting.page.table import Cell, table

HOSTILE = '</script><img src=x onerror=alert(1)>"\'&'


def test_markup_escapes_every_text():
    made = markup.tag('p', HOSTILE, markup.tag('br'), title=HOSTILE, data_v=1, hidden=True, id=None)
    escaped = '&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;'
    assert made == f'<p title="{escaped}" data-v="1" hidden>{escaped}<br></p>'
    assert markup.tag('p', '\x00\u202e') == r'<p>\x00\u202e</p>'


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('a\nb', r'<bdi>a\nb</bdi>'),
        ('\u202egnp.exe', r'<bdi>\u202egnp.<wbr>exe</bdi>'),
        ('\udcff', r'<bdi>\udcff</bdi>'),
        ('猫', '<bdi>猫</bdi>'),
        ('optim.name=sgd', '<bdi>optim.<wbr>name=<wbr>sgd</bdi>'),
    ],
)
def test_names_show_what_they_hide(text, shown):
    assert markup.name(text) == shown


def test_a_long_name_loses_its_middle():
    made = markup.name('a' * 100 + 'b' * 100)
    assert f'title="{"a" * 100}{"b" * 100}"' in made
    assert f'{"a" * 40}…{"b" * 39}' in made


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0.0001234567, '0.0001235'),
        (1e-05, '1e-5'),
        (12345, '12,345'),
        (2889.7, '2,890'),
        (0.5, '0.5'),
        (3.0, '3'),
        (math.nan, '–'),
        (None, '–'),
        (True, 'True'),
        (1e300, '1e300'),
    ],
)
def test_numbers_have_the_digits_that_they_are_worth(value, text):
    assert markup.number(value) == text


@pytest.mark.parametrize(
    ('low', 'high', 'log', 'labels'),
    [
        (0.0, 1.0, False, ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']),
        (0.873, 0.928, False, ['0.88', '0.90', '0.92']),
        (-3.0, 2.0, False, ['−3', '−2', '−1', '0', '1', '2']),
        (0.0, 4210.0, False, ['0', '1,000', '2,000', '3,000', '4,000']),
        (1e-5, 0.1, True, ['1e-5', '0.0001', '0.001', '0.01', '0.1']),
        (0.01, 0.3, True, ['0.01', '0.02', '0.05', '0.1', '0.2']),
    ],
)
def test_ticks_are_round_numbers(low, high, log, labels):
    assert [text for _, text in charts.Axis(low, high, 0, 100, log).labels()] == labels


@pytest.mark.parametrize('log', [False, True])
def test_any_values_have_an_axis(log):
    for values in ([], [0.0], [5.0, 5.0], [math.nan, math.inf], [-1.0, 1e-12], [1e-200, 1e200]):
        axis = charts.axis(values, 0, 100, log)
        assert axis.low < axis.high
        assert all(0 <= axis(value) <= 100 for value in axis.ticks())


def test_the_lines_of_a_chart_go_through_its_points():
    across, up = charts.Axis(0, 10, 0, 100), charts.Axis(0, 1, 100, 0)
    points = [(0.0, 0.0), (1.0, 0.333), (2.0, 0.25), (3.0, math.nan), (4.0, 1.0)]
    first, second = re.findall(r'M([^M]+)', charts.path(points, across, up))
    start, steps = first.split('l')
    numbers = [float(each) for each in re.findall(r'-?(?:\d+\.?\d*|\.\d+)', f'{start} {steps}')]
    places = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0)
    expected = [(across(x), up(y)) for x, y in points[:3]]
    np.testing.assert_allclose(places, expected, atol=0.051)
    assert second.startswith('40 0l')


def test_a_log_axis_leaves_out_what_it_cannot_show():
    across = charts.Axis(0, 3, 0, 30)
    up = charts.axis([1, 10], 9, 0, log=True)
    d = charts.path([(0, 1.0), (1, 0.0), (2, -1.0), (3, 10.0)], across, up)
    assert d.count('M') == 2


def test_a_strip_shows_values_mean_and_interval():
    scale = charts.Axis(0, 1, 0, 100)
    made = charts.strip([(0.25, 'a'), (0.75, 'b')], scale, 'two', mean=0.5, interval=(0.1, 1.5))
    assert re.findall(r'cx="(\S+)"', made) == ['25', '75']
    assert re.search(r'<rect x="(\S+)" .* width="(\S+)"', made).groups() == ('10', '90')
    assert 'd="M50 4v14"' in made


def test_thinned_curves_keep_their_ends():
    points = [(step, float(step)) for step in range(1000)]
    thinned = curves._thinned(points, 50)
    assert (len(thinned), thinned[0], thinned[-1]) == (50, points[0], points[-1])
    sizes = [1000] * 10 + [20] * 10
    limit = curves._limit(sizes, 1000)
    assert 900 < sum(min(size, limit) for size in sizes) <= 1000


def test_a_band_reaches_from_the_lowest_to_the_highest_run():
    line = curves._band('a', 0, [[(1, 2.0), (2, 4.0)], [(1, 4.0), (2, math.nan)], [(1, 9.0)]])
    assert line.points == [(1, 5.0), (2, 4.0)]
    assert line.band == [(1, 2.0, 9.0), (2, 4.0, 4.0)]


@pytest.mark.parametrize('kinds', [2, 5])
def test_importance_is_the_adjusted_share_of_a_one_way_analysis(kinds):
    rng = np.random.default_rng(kinds)
    levels = rng.integers(kinds, size=60)
    values = levels * 0.5 + rng.normal(size=60)
    # With F of the analysis of variance: Okada (2013, Behaviormetrika 40), equation 6.
    f = scipy.stats.f_oneway(*(values[levels == kind] for kind in range(kinds))).statistic
    between, within = kinds - 1, 60 - kinds
    expected = max(0, between * (f - 1) / (between * f + within))
    names = [f'level {level}' for level in levels]
    assert importance.epsilon_squared(names, values.tolist()) == pytest.approx(expected)
    assert importance.epsilon_squared(levels.tolist(), values.tolist()) == pytest.approx(expected)


def test_importance_of_noise_is_small_and_of_a_bump_large():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200)
    epsilon_squared = importance.epsilon_squared
    noise = [epsilon_squared(x.tolist(), rng.normal(size=200).tolist()) for _ in range(50)]
    assert np.mean(noise) < 0.02
    assert epsilon_squared(x.tolist(), (-(x**2)).tolist()) > 0.8
    assert epsilon_squared([1, 1, 1], [1.0, 2.0, 3.0]) == 0
    assert epsilon_squared(['a', 'b', 'c'], [1.0, 2.0, 3.0]) == 0


def test_a_reliability_diagram_shows_accuracies_with_their_intervals(make_run, tmp_path):
    run = make_run(tmp_path / 'run')
    confidence = np.repeat([0.5, 0.9], [10, 40]).astype(np.float32)
    prediction = np.concatenate([np.repeat([0, 1], [6, 4]), np.repeat([0, 1], [38, 2])])
    np.savez(
        run / 'artifacts/predictions.npz',
        index=np.arange(50),
        label=np.zeros(50, int),
        prediction=prediction,
        confidence=confidence,
        loss=confidence,
    )
    text = page.html(records.read([run]))
    axis = charts.Axis(0, 1, 214, 18)
    whiskers = re.findall(r'class="whisker" d="M(\S+) (\S+)V(\S+)"', text)
    for (right, count), (_, low, high) in zip(((6, 10), (38, 40)), whiskers, strict=True):
        ends = scipy.stats.binomtest(right, count).proportion_ci(method='wilson')
        np.testing.assert_allclose((float(low), float(high)), list(map(axis, ends)), atol=0.06)
    assert 'confidence 0.500, accuracy 0.600, 10 images' in text
    assert 'confidence 0.900, accuracy 0.950, 40 images' in text
    assert f'ECE {(10 * 0.1 + 40 * 0.05) / 50:.4f}' in text


def image_of(source):
    return Image.open(io.BytesIO(base64.b64decode(source.partition(',')[2])))


def test_the_picture_of_a_matrix_has_its_shares():
    shares = np.array([[1.0, 0.0, -0.25], [0.04, -1.0, 0.0], [0.0, 0.0001, 0.5]])
    pixels = np.asarray(image_of(confusion._png(shares)).convert('RGBA')).astype(float)
    alpha, is_blue = pixels[..., 3], pixels[..., 2] > 128
    np.testing.assert_array_equal(alpha == 0, shares == 0)
    np.testing.assert_array_equal(is_blue[shares != 0], shares[shares != 0] > 0)
    read = np.maximum((alpha / 2 - 30) / 97, 0) ** 2  # as pointer.js does
    np.testing.assert_allclose(read, np.abs(shares), atol=0.01)


def test_a_large_matrix_keeps_each_mistake_in_a_cell_of_neighbours():
    shares = np.eye(2500)
    shares[2499, 0] = 0.5
    source = re.search(r'src="([^"]+)"', confusion._picture(shares, ['a'] * 2500, 'confusion'))[1]
    pixels = np.asarray(image_of(source).convert('RGBA'))
    assert max(pixels.shape) <= confusion.MAX_CELLS
    assert pixels[-1, 0, 3] > 0
    assert (pixels[..., 3] > 0).sum() == len(pixels) + 1


@pytest.mark.parametrize(
    ('shape', 'size'), [((28, 28, 1), (28, 28)), ((40, 20, 3), (20, 40)), ((150, 100, 3), None)]
)
def test_mistakes_show_the_images_of_the_figure(make_run, tmp_path, shape, size):
    """Each image has a colour of its own; the page cuts them out of the test's figure."""
    count = 7
    colours = np.random.default_rng(0).integers(40, 215, size=(count, shape[2]), dtype=np.uint8)
    images = np.broadcast_to(colours[:, None, None], (count, *shape)).copy()
    images[:, 0, 0], images[:, -1, -1] = 0, 255  # a grey picture is drawn with its own range
    run = make_run(tmp_path / 'run')
    figure = figures.captioned(images, ['a\nb'] * count, 'title')
    figure.savefig(run / 'artifacts/worst_mistakes.png', dpi=tiling.DPI)
    environment = records.files.read_json(run / 'environment.json')
    environment['data']['image_shape'] = shape
    records.files.write_json(run / 'environment.json', environment)
    np.savez(
        run / 'artifacts/predictions.npz',
        index=np.arange(9),
        label=np.zeros(9, int),
        prediction=np.array([1] * count + [0, 0]),
        confidence=np.full(9, 0.75, np.float32),
        loss=np.arange(9, 0, -1.0),
    )
    text = page.html(records.read([run]))
    found = [image_of(source) for source in re.findall(r'<img src="([^"]+)"', text)]
    assert len(found) == count
    for image, colour in zip(found, colours.astype(int), strict=True):
        assert size is None or image.size == size
        middle = np.asarray(image.convert('RGB')).astype(int)[image.height // 2, image.width // 2]
        assert np.abs(middle - colour).max() <= 4


def test_a_table_says_that_it_is_cut():
    rows = [[Cell('x' * 100, ''), Cell(number, number, is_number=True)] for number in range(5000)]
    text = table('all', ['name', 'number'], rows)
    assert len(text) < 150_000
    kept = text.count('<tr><th scope=row>')
    assert f'The first {kept:,} of 5,000 rows' in text
