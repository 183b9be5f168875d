"""Which fields a resumed run may change: exactly those that docs/resume.md names."""

import re
from pathlib import Path

import pytest

from neptune_jax import defaults
from neptune_jax.errors import UserError
from neptune_jax.runs import writer

PAGE = Path(__file__).parents[2] / 'docs/resume.md'


def documented():
    """The names in the sentence that lists these fields; a name may end in '.*'."""
    (sentence,) = re.findall(r'These fields may differ.*?\.\n\n', PAGE.read_text(), re.DOTALL)
    return re.findall(r'`([\w.]+[\w*])`', sentence)


def another_value(field):
    """A value that differs from the default of a field."""
    if field.choices:
        return next(choice for choice in field.choices if choice != field.default)
    if field.type is bool:
        return not field.default
    if field.type in (int, float):
        return field.type((field.default or 0) + 3)
    if field.type is tuple:
        return (*field.default, 'another')
    return f'{field.default}another'


@pytest.mark.parametrize('name', [name for name in defaults.FIELDS if name != 'optim.options'])
def test_a_field_may_change_if_and_only_if_the_documentation_says_so(tmp_path, name):
    config = defaults.get_config()
    with writer.open_run(tmp_path, config, {}):
        pass
    config.update_from_flattened_dict({name: another_value(defaults.FIELDS[name])})
    is_free = name in documented() or f'{name.partition(".")[0]}.*' in documented()
    opened = writer.open_run(tmp_path, config, {})
    if is_free:
        with opened:
            return
    with pytest.raises(UserError, match=re.escape(f'{name}: ')), opened:
        pass
