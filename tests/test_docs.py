"""What the pages name exists: links, modules, flags, fields, files. Their figures are measured.

The pages are README.md, CONTRIBUTING.md, and the Markdown files of docs/, experiments/ and tests/.
"""

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

from ml_collections import ConfigDict

from docs import generate_configs
from neptune_jax import defaults, models

ROOT = Path(__file__).parents[1]
TOP = ('neptune_jax', 'experiments', 'configs', 'tests', 'docs')
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/*.md')]
PAGES += [*ROOT.glob('experiments/**/*.md'), *ROOT.glob('tests/**/*.md')]
FENCE = re.compile(r'^```.*?^```', re.DOTALL | re.MULTILINE)

# What a page names that this repository does not have: files of a reader, files of other projects.
OTHER_FILES = {'mine.py', 'FILE', 'utils.py'}
OTHER_FLAGS = ('xla_', 'kill-on-bad-exit')  # of XLA and srun

# Of files whose names look like fields.
ENDINGS = tuple('.py .npz .jsonl .html .onnx .safetensors .stablehlo'.split())


def prose(page):
    """Returns a page without its blocks of code."""
    return FENCE.sub('', page.read_text())


def spans():
    """Yields each page with each text in backticks outside blocks of code."""
    for page in PAGES:
        for span in re.findall(r'`([^`]+)`', prose(page)):
            yield page, ' '.join(span.split())


def commands():
    """Yields each page with each text in backticks and each line of a block of code."""
    yield from spans()
    for page in PAGES:
        code = '\n'.join(FENCE.findall(page.read_text()))
        for line in re.sub(r'\\\n\s*', '', code).splitlines():  # a continued line is one
            yield page, re.sub(r'\s+#.*', '', line).strip()


def report(page, name):
    return f'{page.relative_to(ROOT)}: {name}'


def headings(page):
    """Returns the anchors that GitHub makes of the headings of a page."""
    titles = re.findall(r'^#+ (.*)$', prose(page), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def flags_of(script):
    """Returns the names of the flags that a script defines."""
    text = script.read_text()
    names = set(re.findall(r"(?:DEFINE_\w+\(|add_argument\()\s*'(?:--)?(\w+)'", text))
    return names | ({'config', 'help'} if 'define_config()' in text else set())


def fields_and_groups():
    names = set(defaults.FIELDS)
    for name in models.MODELS:
        names |= {f'model.{field}' for field in models.complete_fields(ConfigDict({'name': name}))}
    return names | {name.rpartition('.')[0] for name in names}


def test_links_lead_to_files_and_headings():
    missing = []
    for page in PAGES:
        for target in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
            name, _, anchor = target.partition('#')
            path = page.parent / name if name else page
            if re.match(r'\w+:', target):
                continue
            if not path.exists() or (anchor and anchor not in headings(path)):
                missing.append(report(page, target))
    assert not missing, '\n'.join(missing)


def test_commands_name_modules_that_exist_and_their_flags():
    wrong, checked = [], 0
    for page, command in commands():
        match = re.search(r'python3? (-m )?([\w./]+)(.*)', command)
        if not match or not match[2].startswith(TOP):
            continue
        path = ROOT / (match[2].replace('.', '/') + '.py' if match[1] else match[2])
        if not path.is_file():
            wrong.append(report(page, command))
            continue
        for flag in re.findall(r'(?<!\S)--([\w-]+)', match[3].split(' -- ')[0]):
            checked += 1
            if flag.replace('-', '_') not in flags_of(path):
                wrong.append(report(page, f'--{flag} of {command}'))
    assert checked > 20
    assert not wrong, '\n'.join(wrong)


def test_flags_exist():
    scripts = [*ROOT.glob('neptune_jax/*.py'), *ROOT.glob('experiments/**/*.py')]
    scripts += ROOT.glob('tests/stress/*.py')
    known = {flag for script in scripts for flag in flags_of(script)}
    wrong = [
        report(page, span)
        for page, span in spans()
        if (match := re.match(r'--([\w-]+)', span))
        and match[1].replace('-', '_') not in known
        and not match[1].startswith(OTHER_FLAGS)
    ]
    assert not wrong, '\n'.join(wrong)


def test_fields_of_configs_exist_and_have_these_choices():
    known = fields_and_groups()
    groups = {name.split('.')[0] for name in known if '.' in name}
    found = [
        (page, match[1])
        for page, span in spans()
        if (match := re.fullmatch(r'((?:\w+\.)+(?:\w+|\*))(?:=.*)?', span))
        and match[1].split('.')[0] in groups
        and not match[1].endswith(ENDINGS)
    ]
    for page in PAGES:
        found += [(page, name) for name in re.findall(r'--config\.([\w.]+)=', page.read_text())]
        for name, value in re.findall(r"\b([a-z]+\.[a-z_.]+)='?([\w:]+)", page.read_text()):
            field = defaults.FIELDS.get(name.removeprefix('config.'))
            if field and field.choices and ':' not in value:
                assert value in field.choices, report(page, f'{name}={value}')
    assert len(found) > 20
    wrong = [report(*each) for each in found if each[1].removesuffix('.*') not in known]
    assert not wrong, '\n'.join(wrong)


def test_files_exist():
    names = {path.name for top in TOP for path in (ROOT / top).rglob('*') if path.is_file()}
    names |= {path.name for path in ROOT.iterdir()}
    found = [
        (page, match[0].rstrip('/'))
        for page, text in commands()
        if (
            match := re.fullmatch(rf'[\w./*-]+\.(?:py|md|toml)|(?:{"|".join(TOP)})/[\w./*-]*', text)
        )
    ]
    for page, text in commands():
        found += [(page, name) for name in re.findall(r'--config=([\w./]+)', text)]
    missing = []
    for page, name in found:
        places = (ROOT, page.parent, ROOT / 'neptune_jax')
        exists = any(any(place.glob(name)) for place in places) or name in names
        if not exists and name not in OTHER_FILES:
            missing.append(report(page, name))
    assert len(found) > 20
    assert not missing, '\n'.join(missing)


def test_dotted_names_can_be_imported():
    missing, checked = [], 0
    for page, span in spans():
        match = re.fullmatch(rf'((?:{"|".join(TOP)})(?:\.\w+)+)(?:\(.*\))?', span)
        if not match or span.endswith('.py'):
            continue
        checked += 1
        try:
            pkgutil.resolve_name(match[1])
        except (ImportError, AttributeError):
            missing.append(report(page, span))
    assert checked
    assert not missing, '\n'.join(missing)


def test_make_targets_exist():
    makefile = (ROOT / 'Makefile').read_text()
    targets = re.search(r'^\.PHONY: (.*)$', makefile, re.MULTILINE)[1].split()
    found = [
        (page, match[1]) for page, text in commands() if (match := re.match(r'make (\w+)', text))
    ]
    wrong = [report(*each) for each in found if each[1] not in targets]
    assert not wrong, '\n'.join(wrong)


# ----------------------------------------------------------------------------------------- figures
def test_figures_on_the_pages_are_those_of_the_results():
    command = [sys.executable, '-m', 'experiments.pages', '--check']
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_measured_figures_stand_between_markers():
    """So that none is left behind when something is measured again."""
    found = []
    for page in [PAGES[0], *ROOT.glob('docs/*.md')]:
        if page.name == 'configs.md':  # written from the code
            continue
        text = re.sub(r'<!-- figures: .*?<!-- end -->', '', prose(page), flags=re.DOTALL)
        text = re.sub(r'`[^`]*`', '', text)
        figures = r'\d[\d.,]*\s?(?:images/s|times\b|%|ms\b|s\b|MiB\b)|\b0\.[1-9]\d\d'
        found += [report(page, figure) for figure in re.findall(figures, text)]
    assert not found, '\n'.join(found)


def test_the_readme_has_the_table_that_the_experiment_prints():
    command = [sys.executable, 'experiments/four_networks/run.py']
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.startswith('| config |')
    assert printed in (ROOT / 'README.md').read_text()


def test_the_transcript_in_the_readme_was_printed():
    results = ROOT / 'experiments/four_networks/results/first_command.json'
    recorded = iter(json.loads(results.read_text())['transcript'])
    readme = (ROOT / 'README.md').read_text()
    block = re.search(r'<!-- figures: transcript -->\n```\n(.*?)\n```', readme, re.DOTALL)
    lines = block[1].splitlines()
    assert 10 < len(lines) <= 25
    for line in lines:
        assert line == '...' or line in recorded, line  # `in` moves on, so the order counts


def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


def test_the_makefile_says_what_was_measured():
    figures, speed = (
        set(re.findall(r'\b\d,\d{3}\b', (ROOT / name).read_text()))
        for name in ('Makefile', 'docs/speed.md')
    )
    assert figures
    assert figures <= speed


def test_the_page_of_config_fields_is_that_of_the_code():
    assert generate_configs.PAGE.read_text() == generate_configs.page(), (
        'python -m docs.generate_configs'
    )
