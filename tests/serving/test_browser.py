"""The page in a headless Chromium: an image given in each way, the keyboard, what it may load."""

import dataclasses
import json

import pytest
from PIL import Image

from neptune_jax.serving.guard import Access
from tests import browser
from tests.serving.running import encode, run_server

pytestmark = pytest.mark.skipif(
    browser.find() is None, reason='no Chromium; on Debian: apt install chromium'
)

TOKEN = '0123456789abcdef'
DONE = '!document.getElementById("result").hidden'


@pytest.fixture
def page(quiet_page):
    return quiet_page


@pytest.fixture
def image_file(tmp_path, pictures):
    path = tmp_path / 'image.png'
    path.write_bytes(encode(pictures[0]))
    return path


def address_of(server):
    return f'http://127.0.0.1:{server.port}/'


def open_page(page, server):
    page.open(address_of(server))
    page.wait('document.getElementById("about").textContent !== ""')


def shown(page):
    """Returns the rows of the table, and the status line."""
    page.wait(DONE)
    rows = page.run(
        '[...document.querySelectorAll("#classes tr")].map((row) => [...row.cells].map('
        '(cell) => cell.textContent))'
    )
    return [tuple(row) for row in rows], page.text('#status')


def expected_rows(predictor, picture):
    probabilities = predictor(picture[None])[0]
    rows = sorted(zip(probabilities.tolist(), predictor.classes, strict=True), reverse=True)
    return [(name, f'{100 * value:.1f}%') for value, name in rows]


def test_an_image_that_is_dropped(page, server, predictor, pictures, image_file):
    open_page(page, server)
    page.drop(image_file)
    rows, status = shown(page)
    assert rows == expected_rows(predictor, pictures[0])
    assert status == ', '.join(rows[0])
    sizes = page.run(
        'Promise.all(["original", "seen"].map(async (id) => { const image = '
        'document.getElementById(id); await image.decode(); return [image.naturalWidth, '
        'image.naturalHeight]; }))'
    )
    assert sizes == [[28, 28], [28, 28]]
    assert 'What the network sees: 28×28 pixels, grey' in page.text('#result')
    own = address_of(server)
    others = [each for each in page.addresses if not each.startswith((own, 'data:', 'blob:'))]
    assert others == []
    assert f'{own}page.js' in page.addresses


@pytest.mark.parametrize('selector', ['#file', '#photo'])
def test_an_image_that_is_chosen_or_photographed(
    page, server, predictor, pictures, image_file, selector
):
    open_page(page, server)
    page.choose(selector, image_file)
    assert shown(page)[0] == expected_rows(predictor, pictures[0])


def test_an_image_that_is_pasted(page, server, predictor, pictures, image_file):
    open_page(page, server)
    content = list(image_file.read_bytes())
    page.run(
        'const data = new DataTransfer(); data.items.add(new File([new Uint8Array('
        f'{content})], "image.png", {{type: "image/png"}})); document.dispatchEvent('
        'new ClipboardEvent("paste", {clipboardData: data}));'
    )
    assert shown(page)[0] == expected_rows(predictor, pictures[0])


def test_what_cannot_be_read_is_said(page, server, tmp_path):
    text = tmp_path / 'notes.txt'
    text.write_text('<img src=x onerror=alert(1)>')
    open_page(page, server)
    page.choose('#file', text)
    page.wait('document.getElementById("status").classList.contains("error")')
    assert page.text('#status') == 'this is no PNG, JPEG, WebP, BMP or GIF image'
    assert not page.run(DONE)
    # The browser itself lists each answer that is no success.
    assert all('415' in line for line in page.console)
    page.console.clear()


def test_names_of_classes_are_text(page, predictor, image_file):
    names = tuple(f'<img src=x onerror=alert({number})>' for number in range(10))
    odd = dataclasses.replace(predictor, classes=names, _programs={})
    with run_server({'<b>odd</b>': odd, 'run': predictor}, batch_size=1) as server:
        open_page(page, server)
        page.drop(image_file)
        rows, _ = shown(page)
        assert {name for name, _ in rows} == set(names)
        assert page.run('document.querySelectorAll("#classes img, b").length') == 0
        page.run(
            'const model = document.getElementById("model"); model.value = "run"; '
            'model.dispatchEvent(new Event("change"))'
        )
        page.wait(f'document.querySelector("#classes th").textContent.charAt(0) !== "<" && {DONE}')


def test_the_keyboard_reaches_everything_and_it_has_names(page, server):
    open_page(page, server)
    reached = []
    for _ in range(2):
        page.press('Tab', 9)
        reached.append(page.run('document.activeElement.id'))
        assert (
            page.run('getComputedStyle(document.activeElement.labels[0]).outlineStyle') == 'solid'
        )
    assert reached == ['file', 'photo']
    nodes = page.call('Accessibility.getFullAXTree')['nodes']
    names = {
        (node['role']['value'], node.get('name', {}).get('value'))
        for node in nodes
        if 'role' in node
    }
    assert ('heading', 'What is in this image?') in names
    assert {name for role, name in names if role == 'button'} == {
        'Choose an image',
        'Take a photograph',
    }
    assert any(role == 'status' for role, _ in names)


def test_the_page_asks_for_the_token(page, predictor, pictures, image_file):
    access = Access(token=TOKEN.encode())
    with run_server({'run': predictor}, access=access, batch_size=1) as server:
        page.open(address_of(server))
        page.wait('!document.getElementById("token-form").hidden')
        assert page.text('#status') == 'This server needs a token.'
        assert page.run('document.activeElement.id') == 'token'
        for letter in TOKEN:
            page.press(letter, 0, letter)
        page.press('Enter', 13, '\r')
        page.wait('document.getElementById("token-form").hidden')
        page.drop(image_file)
        assert shown(page)[0] == expected_rows(predictor, pictures[0])
        assert all('401' in line for line in page.console)
        page.console.clear()


def test_the_page_fits_a_telephone_and_both_colour_schemes(page, server, tmp_path, image_file):
    open_page(page, server)
    page.drop(image_file)
    page.wait(DONE)
    colours = set()
    for width in (360, 1200):
        for dark in (False, True):
            path = tmp_path / f'{width}-{dark}.png'
            page.screenshot(path, width=width, dark=dark)
            assert page.run('document.documentElement.scrollWidth <= innerWidth')
            with Image.open(path) as picture:
                colours.add((dark, picture.convert('L').getpixel((2, 2)) > 128))
    assert colours == {(False, True), (True, False)}


def test_nothing_else_can_be_loaded(page, server):
    open_page(page, server)
    for script in (
        'const script = document.createElement("script"); script.text = "window.x = 1"; '
        'document.head.append(script)',
        'document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\\"window.x = 1\\">")',
    ):
        page.run(script)
    blocked = page.run(
        f'fetch({json.dumps("http://localhost:1/")}).then(() => "loaded", () => "blocked")'
    )
    assert blocked == 'blocked'
    assert page.run('window.x') is None
    assert any('Content Security Policy' in line for line in page.console)
    page.console.clear()
