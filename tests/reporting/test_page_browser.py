"""The page in a headless Chromium: hostile names, scripts and none, keys, telephones, printing."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from neptune_jax.reporting import escaping, records
from neptune_jax.reporting import page as pages
from neptune_jax.runs import files
from tests import browser
from tests.reporting.conftest import write_run

pytestmark = pytest.mark.skipif(
    browser.find() is None, reason='no Chromium; on Debian: apt install chromium'
)

HOSTILE = (
    '<img src=x onerror="window.hit=1">',
    '</script><script>window.hit=2</script>',
    '"\'><svg onload=window.hit=3>',
    '<!--<script>',
    '=cmd|calc!A0',
    '${window.hit=4}',
    '\u202egnp.exe',
    'line\nbreak | pipe & 50% \\_{}~^$#',
    '猫と犬 שלום',
    'x' * 300,
)


@pytest.fixture
def page(quiet_page):
    """A page that loads nothing but files."""
    yield quiet_page
    assert all(each.startswith(('file:', 'data:')) for each in quiet_page.addresses)


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """The page of three groups with hostile names, and the page of a search."""
    folder = tmp_path_factory.mktemp('report')
    rng = np.random.default_rng(0)
    for number, name in enumerate(HOSTILE[:3]):
        for seed in range(3):
            accuracy = 0.8 + 0.05 * number + 0.01 * seed
            rows = [
                {
                    'step': step,
                    'time': 1.7e9 + step,
                    'train/loss': 1 / step,
                    'val/accuracy': accuracy,
                }
                for step in range(10, 110, 10)
            ]
            run = write_run(
                folder / f'sweep/{HOSTILE[3]}&<b> {number}{seed}',
                fields={'optim.name': name, 'data.path': HOSTILE[1]},
                seed=seed,
                accuracy=accuracy,
                rows=rows,
            )
            spoil(run, rng)
    for number in range(12):
        write_run(
            folder / f'search/{number:04d}',
            fields={'optim.learning_rate': 0.001 * 2**number, 'optim.name': HOSTILE[number % 2]},
            accuracy=0.9 - 0.01 * (number - 6) ** 2,
        )
    for name in ('sweep', 'search'):
        pages.write(records.read([folder / name]), folder / f'{name}.html')
    return folder


def spoil(run, rng):
    """Gives a run hostile names of classes, a hostile command, and predictions."""
    environment = files.read_json(run / 'environment.json')
    environment['data'] |= {'classes': HOSTILE, 'source': HOSTILE[0], 'image_shape': [8, 8, 1]}
    environment['command'] += HOSTILE[:4]
    environment['devices'] = [HOSTILE[1]]
    files.write_json(run / 'environment.json', environment)
    label = rng.integers(10, size=200)
    np.savez(
        run / 'artifacts/predictions.npz',
        index=np.arange(200),
        label=np.zeros(200, int) + np.arange(200) % 10,
        prediction=np.where(rng.uniform(size=200) < 0.8, np.arange(200) % 10, label),
        confidence=rng.uniform(0.1, 1, 200).astype(np.float32),
        loss=rng.uniform(size=200).astype(np.float32),
    )


def open_report(page, folder, name='sweep'):
    page.open((folder / f'{name}.html').as_uri())


def column(page, table, number):
    return page.run(
        f'[...document.querySelectorAll("#table-{table} tbody tr:not([hidden])")].map('
        f'(row) => row.cells[{number}].textContent)'
    )


def test_hostile_names_are_text(page, report):
    open_report(page, report)
    assert page.run('window.hit') is None
    assert page.run('document.querySelectorAll("script").length') == 2
    assert page.run('document.querySelectorAll("b b, [onerror], [onload], img[src=x]").length') == 0
    groups = column(page, 'groups', 0)
    assert groups == [f'optim.name={name}' for name in reversed(HOSTILE[:3])]
    classes = column(page, 'classes', 0)
    assert classes[:6] == list(HOSTILE[:6])
    assert classes[6] == r'\u202egnp.exe'
    assert classes[7].startswith(r'line\nbreak')
    assert len(classes[9]) == 80
    assert HOSTILE[1] in page.text('#environment')


def test_nothing_else_runs_or_loads(page, report):
    open_report(page, report)
    for script in (
        'const one = document.createElement("script"); one.text = "window.hit = 5"; '
        'document.head.append(one)',
        'document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\\"window.hit = 6\\">")',
    ):
        page.run(script)
    blocked = 'fetch("http://localhost:1/").then(() => "loaded", () => "blocked")'
    assert page.run(blocked) == 'blocked'
    assert page.run('window.hit') is None
    assert any('Content Security Policy' in line for line in page.console)
    page.console.clear()
    page.addresses.clear()


def test_a_table_is_sorted_filtered_and_counted(page, report):
    open_report(page, report)
    page.run('document.querySelector("#table-runs thead th:nth-child(3) button").click()')
    assert column(page, 'runs', 2) == sorted(['0', '1', '2'] * 3, reverse=True)
    page.run('document.querySelector("#table-runs thead th:nth-child(3) button").click()')
    assert column(page, 'runs', 2) == sorted(['0', '1', '2'] * 3)
    assert page.run('document.querySelector("#table-runs [aria-sort]").ariaSort') == 'ascending'
    page.run(
        'const filter = document.querySelector("[data-filter=table-runs]"); '
        'filter.value = "onerror  finished"; filter.dispatchEvent(new Event("input"))'
    )
    assert len(column(page, 'runs', 0)) == 3
    assert page.text('[data-count=table-runs]') == '3 of 9 rows'


def copied(page, table, form):
    page.run(
        'window.copied = null; navigator.clipboard.writeText = async (text) => '
        '{ window.copied = text; }; '
        f'document.querySelector("[data-copy=table-{table}][data-form={form}]").click()'
    )
    page.wait('window.copied !== null')
    return page.run('window.copied')


def test_tables_are_copied_as_markdown_latex_and_csv(page, report):
    open_report(page, report)
    head, *rows = csv.reader(io.StringIO(copied(page, 'groups', 'CSV')))
    assert head[:4] == ['Group', 'test/accuracy', 'deviation', 'n']
    assert [float(row[1]) for row in rows] == pytest.approx([0.91, 0.86, 0.81])
    assert [float(row[2]) for row in rows] == pytest.approx([0.01] * 3)
    assert rows[0][0] == f'optim.name={HOSTILE[2]}'
    classes = list(csv.reader(io.StringIO(copied(page, 'classes', 'CSV'))))
    assert classes[5][0] == f"'{HOSTILE[4]}"  # no formula of a spreadsheet
    assert classes[0][-1] == 'F1, A − B'
    assert min(float(row[-1]) for row in classes[1:]) < 0  # with a minus that programs read

    names = [escaping.plain(name) for name in HOSTILE[:9]]
    markdown = copied(page, 'classes', 'Markdown').splitlines()
    assert markdown[1].startswith('| --- | ---: |')
    assert [line.split(' | ')[0][2:] for line in markdown[2:11]] == [
        escaping.markdown(name) for name in names
    ]
    latex = copied(page, 'classes', 'LaTeX').splitlines()
    assert latex[1].startswith(r'\begin{tabular}{lr')
    assert [latex[2], latex[4], latex[-2]] == [r'\toprule', r'\midrule', r'\bottomrule']
    assert [line.split(' & ')[0] for line in latex[5:14]] == [
        escaping.latex(name).split(' & ')[0] for name in names
    ]


def test_charts_answer_to_the_pointer_the_keys_and_the_controls(page, report):
    open_report(page, report)
    figure = '[data-curve="train/loss"]'
    page.run(f"document.querySelector('{figure} svg').focus()")
    page.press('ArrowRight', 39)
    tip = page.text(f'{figure} .tip')
    assert tip.startswith('step 10')
    assert '0.1' in tip
    assert HOSTILE[0] in tip
    page.press('ArrowRight', 39)
    assert page.text(f'{figure} .tip').startswith('step 20')
    page.press('Escape', 27)
    assert page.run(f"document.querySelector('{figure} .tip')") is None

    lines = f"document.querySelectorAll('{figure} .line').length"
    assert page.run(lines) == 3
    choose(page, 'show', 'runs')
    assert page.run(lines) == 9
    page.run('document.querySelector("[data-group] button").click()')
    assert page.run(lines) == 6
    assert page.run('document.querySelector("[data-group] button").ariaPressed') == 'false'
    ticks = f"[...document.querySelectorAll('{figure} .end')].map((each) => each.textContent)"
    before = page.run(ticks)
    choose(page, 'logY', True)
    assert page.run(ticks) != before
    choose(page, 'x', 'epoch')  # 20 steps are 5 epochs
    page.run(f"document.querySelector('{figure} svg').focus()")
    page.press('ArrowLeft', 37)
    assert page.text(f'{figure} .tip').startswith('epoch 25')
    choose(page, 'smooth', 0.5)
    page.press('ArrowLeft', 37)
    page.press('ArrowRight', 39)
    weights = 0.5 ** np.arange(9, -1, -1)
    smoothed = np.average(1 / np.arange(10, 110, 10), weights=weights)
    assert f'{smoothed:.4g}' in page.text(f'{figure} .tip')


def choose(page, name, value):
    page.run(
        f'const control = document.querySelector("[data-set={name}]"); '
        f'control[control.type === "checkbox" ? "checked" : "value"] = {json.dumps(value)}; '
        'control.dispatchEvent(new Event("input"))'.replace('const control', 'var control')
    )


def test_the_charts_of_scripts_are_those_of_python(page, report):
    open_report(page, report)
    paths = (
        '[...document.querySelectorAll("[data-curve] .frame text")].map((each) => each.textContent)'
    )
    with_scripts = page.run(paths)
    page.call('Emulation.setScriptExecutionDisabled', value=True)
    try:
        open_without_scripts(page, report / 'sweep.html')
        assert page.run(paths) == with_scripts
        assert page.run('document.querySelectorAll("[data-curve] .line").length') == 3 * 2
        assert page.run('getComputedStyle(document.querySelector(".tools")).display') == 'none'
        assert 'Comparisons' in page.text('main')
    finally:
        page.call('Emulation.setScriptExecutionDisabled', value=False)


def open_without_scripts(page, path):
    page.call('Page.navigate', url=path.as_uri())
    page.wait('document.readyState === "complete" && document.querySelector("main") !== null')


def test_a_search_is_looked_at_with_pointer_and_keys(page, report):
    open_report(page, report, 'search')
    page.run('document.querySelector("#parallel svg").focus()')
    page.press('ArrowDown', 40)
    assert page.text('#parallel .tip') == '0006: 0.8900'
    page.press('ArrowDown', 40)
    assert page.text('#parallel .tip') in ('0005: 0.8800', '0007: 0.8800')


def test_every_table_and_chart_has_a_name_and_the_keyboard_reaches_the_tools(page, report):
    open_report(page, report)
    nodes = page.call('Accessibility.getFullAXTree')['nodes']
    named = {}
    for node in nodes:
        if 'role' in node and not node.get('ignored'):
            named.setdefault(node['role']['value'], []).append(node.get('name', {}).get('value'))
    assert all(named['image'] if 'image' in named else named['img'])
    assert all(named['button'])
    assert all(named['region'])
    assert {'Copy Markdown', 'Copy LaTeX', 'Copy CSV'} <= set(named['button'])
    assert 'Smoothing' in str(named).title()
    headers = 'document.querySelectorAll("table:not(:has(thead th[scope=col]))").length'
    assert page.run(headers) == 0
    page.run('document.querySelector("nav a").focus()')
    reached = set()
    for _ in range(60):
        page.press('Tab', 9)
        reached.add(page.run('document.activeElement.tagName'))
    assert {'BUTTON', 'INPUT', 'SELECT', 'SUMMARY'} <= reached


@pytest.mark.parametrize('name', ['sweep', 'search'])
def test_it_fits_a_telephone_and_both_colour_schemes(page, report, tmp_path, name):
    open_report(page, report, name)
    colours = set()
    for width in (360, 1280):
        for dark in (False, True):
            path = tmp_path / f'{width}-{dark}.png'
            page.screenshot(path, width=width, dark=dark)
            assert page.run('document.documentElement.scrollWidth <= innerWidth')
            with Image.open(path) as picture:
                colours.add((dark, picture.convert('L').getpixel((2, 2)) > 128))
    assert colours == {(False, True), (True, False)}


def test_it_is_printed_in_full(page, report):
    open_report(page, report)
    page.call('Emulation.setEmulatedMedia', media='print')
    try:
        assert page.run('getComputedStyle(document.querySelector(".tools")).display') == 'none'
        page.call(
            'Emulation.setDeviceMetricsOverride',
            width=794,  # of A4
            height=1123,
            deviceScaleFactor=1,
            mobile=False,
        )
        assert page.run('document.documentElement.scrollWidth <= innerWidth')
        page.run('dispatchEvent(new Event("beforeprint"))')
        assert page.run('document.querySelectorAll("details:not([open])").length') == 0
        content = page.call('Page.printToPDF', printBackground=False)['data']
        assert base64.b64decode(content).startswith(b'%PDF')
    finally:
        page.call('Emulation.setEmulatedMedia', media='')
