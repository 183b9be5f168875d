"""Which folders may import which, beyond the floors of the package that import-linter checks."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imported_modules(path):
    """Returns the full names of what a file imports; `from a import b` counts as 'a.b'."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def imports_of(folder, forbidden):
    """Returns 'FILE: MODULE' for each import of a forbidden top-level package below a folder."""
    return [
        f'{path.relative_to(ROOT)}: {name}'
        for path in sorted((ROOT / folder).rglob('*.py'))
        for name in sorted(imported_modules(path))
        if name.split('.')[0] in forbidden
    ]


def test_tests_and_experiments_do_not_import_each_other():
    """Only tests/experiments/, the tests of the experiments themselves, may import them."""
    allowed = imports_of('tests/experiments', {'experiments'})
    assert allowed, 'the search finds nothing, not even where there is something'
    assert sorted(set(imports_of('tests', {'experiments'})) - set(allowed)) == []
    assert imports_of('experiments', {'tests'}) == []
    assert imports_of('neptune_jax', {'tests', 'experiments', 'configs'}) == []
