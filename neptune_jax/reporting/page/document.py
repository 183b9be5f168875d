"""The HTML file: its sections in order, its style and scripts, and what it may load (nothing)."""

import base64
import datetime
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from neptune_jax.reporting.page import (
    classes,
    compared,
    confusion,
    curves,
    mistakes,
    origins,
    overview,
    results,
    search,
    speed,
    table,
    tested,
    views,
)
from neptune_jax.reporting.page.markup import Markup, join, name, tag
from neptune_jax.reporting.run_record import Record
from neptune_jax.runs import files

_SCRIPTS = ('tables.js', 'curves.js', 'pointer.js')


def html(
    records: Sequence[Record],
    *,
    group_by: Sequence[str] | None = None,
    baseline: str | None = None,
    metric: str | None = None,
) -> str:
    """Returns the page of some runs. `write` describes the arguments and errors."""
    view = views.create(records, group_by, baseline, metric)
    if not view.runs:
        return _document('No runs', '', [('Runs', 'runs', overview.problems(view))], {})
    drawn, tests = curves.choose(view), tested.choose(view)
    sections = [
        ('Overview', 'overview', _overview(view)),
        ('Results', 'results', _results(view)),
        ('Comparisons', 'comparisons', compared.section(view)),
        ('Learning curves', 'curves', curves.section(view, drawn)),
        ('Search', 'search', search.section(view) if view.is_search else None),
        ('Speed', 'speed', speed.section(view)),
        ('Test', 'test', _test(tests)),
        ('Worst mistakes', 'mistakes', _mistakes(tests)),
        ('Environment', 'environment', origins.section(view)),
    ]
    data = curves.data(view, drawn)
    data['classes'] = confusion.names_for_script(tests)
    data['trials'] = search.names_for_script(view) if view.is_search else []
    return _document(view.title, _about(view), sections, data)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a page atomically."""
    files.replace(Path(path), text)


def _document(
    title: str, about: str, sections: Sequence[tuple[str, str, Markup | None]], data: dict
) -> str:
    style = _read('page.css') + confusion.shades_css() + table.alignment_css()
    script = ''.join(map(_read, _SCRIPTS)) if data else ''
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    shown = [each for each in sections if each[2]]
    links = (tag('li', tag('a', text, href=f'#{key}')) for text, key, _ in shown)
    head = tag(
        'head',
        tag('meta', charset='utf-8'),
        tag('meta', http_equiv='Content-Security-Policy', content=policy),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        tag('meta', name='color-scheme', content='light dark'),
        tag('meta', name='referrer', content='no-referrer'),
        tag('title', title),
        tag('link', rel='icon', href='data:,'),
        tag('style', Markup(style)),
    )
    body = tag(
        'body',
        tag('header', tag('h1', name(title)), tag('p', about, class_='quiet')),
        tag('nav', tag('ul', *links), aria_label='Sections'),
        tag('main', *(_section(*each) for each in shown)),
        # A closing tag or a comment in a name must not end the element.
        tag('script', Markup(_json(data)), type='application/json', id='data') if data else None,
        tag('script', Markup(script)) if data else None,
    )
    return f'<!doctype html>\n{tag("html", head, body, lang="en")}\n'


def _section(title: str, key: str, content: Markup | None) -> Markup:
    heading = f'{key}-title'
    return tag('section', tag('h2', title, id=heading), content, id=key, aria_labelledby=heading)


def _about(view: views.View) -> str:
    """Returns how old the results are: a page tells nothing of what came later."""
    what = '1 run' if view.is_single else f'{len(view.runs):,} runs'
    updated = max(record.updated for record in view.runs)
    if not updated:
        return what
    moment = datetime.datetime.fromtimestamp(updated, datetime.UTC)
    return f'{what}; the last change was on {moment:%Y-%m-%d at %H:%M} UTC'


def _overview(view: views.View) -> Markup:
    if view.is_single:
        return join((overview.cards(view), overview.shared(view), overview.problems(view)))
    return join(
        (
            overview.cards(view),
            tag('h3', 'What differs'),
            overview.differences(view),
            overview.problems(view),
            overview.shared(view),
        )
    )


def _results(view: views.View) -> Markup | None:
    if view.is_single:
        return results.metrics(view.runs[0])
    return results.tables(view)


def _test(tests: Sequence[tested.Tested]) -> Markup | None:
    if not tests:
        return None
    return join(
        (
            classes.legend(tests) if len(tests) > 1 else None,
            tag('div', classes.reliability(tests), *confusion.matrices(tests), class_='side'),
            confusion.pairs(tests),
            classes.per_class(tests),
        )
    )


def _mistakes(tests: Sequence[tested.Tested]) -> Markup | None:
    if not tests:
        return None
    parts = []
    for letter, each in zip('AB', tests, strict=False):
        title = f'{letter}: {each.name}' if len(tests) > 1 else None
        parts.append(join((tag('h3', title) if title else None, mistakes.worst(each))))
    return join(parts)


def _read(file: str) -> str:
    folder = resources.files('neptune_jax.reporting.page')
    lines = folder.joinpath(file).read_text(encoding='utf-8').splitlines()
    # A page carries neither indentation nor comments. No text in these files spans lines.
    kept = (line.strip() for line in lines)
    return '\n'.join(line for line in kept if line and not line.startswith(('//', '/*')))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f'sha256-{base64.b64encode(digest).decode()}'


def _json(data: dict) -> str:
    text = json.dumps(data, separators=(',', ':'), allow_nan=False)
    return text.replace('<', '\\u003c')
