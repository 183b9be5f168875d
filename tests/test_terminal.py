"""Lines and tables, whatever the terminal is."""

import io

import pytest
from rich.table import Table

from neptune_jax import terminal


def shown(text, **options):
    """What a table with some text looks like."""
    file = io.StringIO()
    table = Table('name', 'value')
    table.add_row(text, '0.1234')
    terminal.new_console(file=file, **options).print(table)
    return file.getvalue()


@pytest.mark.parametrize('columns', ['0', '1', '5', '-5', 'garbage', '', '100000'])
def test_a_table_can_be_read_whatever_columns_says(monkeypatch, columns):
    monkeypatch.setenv('COLUMNS', columns)
    monkeypatch.setenv('LINES', columns)
    name = 'a name that needs a line of its own and most of its width'
    assert f'{name} │ 0.1234' in shown(name)


def test_a_width_that_shows_something_counts(monkeypatch):
    monkeypatch.setenv('COLUMNS', '45')
    lines = shown('a name that needs a line and a half of that width').splitlines()
    assert max(map(len, lines)) == 45


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ('term', 'has_bar'), [('xterm', True), ('dumb', False), ('unknown', False)]
)
def test_a_terminal_that_cannot_show_a_bar_gets_lines(monkeypatch, term, has_bar):
    monkeypatch.setenv('TERM', term)
    for name in ('FORCE_COLOR', 'TTY_COMPATIBLE'):
        monkeypatch.delenv(name, raising=False)
    file = Terminal()
    monkeypatch.setattr(terminal, 'console', terminal.new_console(file=file))
    terminal.progress_line('step 1')
    assert file.getvalue() == ('' if has_bar else 'step 1\n')


def test_a_closed_pipe_does_not_end_a_program_that_uses_the_package(monkeypatch, tmp_path):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

        def fileno(self):
            return log.fileno()

    with (tmp_path / 'log').open('w') as log:
        monkeypatch.setattr('sys.stdout', Closed())
        monkeypatch.setattr(terminal, 'console', terminal.new_console())
        terminal.line('one')
        terminal.line('two')
