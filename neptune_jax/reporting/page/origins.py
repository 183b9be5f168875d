"""Where the runs come from: their environments and commands."""

import shlex
from collections.abc import Sequence
from pathlib import PurePath

from neptune_jax.reporting.page.markup import Markup, join, name, tag
from neptune_jax.reporting.page.overview import environment, facts_list
from neptune_jax.reporting.page.table import Cell, table
from neptune_jax.reporting.page.views import View
from neptune_jax.reporting.run_record import Record

MAX_COMMANDS = 100


def section(view: View) -> Markup:
    """Returns the different environments, and the command of each run."""
    found: dict[tuple, list[Record]] = {}
    for record in view.runs:
        found.setdefault(tuple(environment(record).items()), []).append(record)
    parts: list[Markup | None] = []
    for facts, records in sorted(found.items(), key=lambda each: -len(each[1])):
        if len(found) > 1:
            names = ', '.join(view.short_name(record) for record in records[:3])
            more = f' and {len(records) - 3:,} more' if len(records) > 3 else ''
            parts.append(tag('h3', f'{len(records):,} runs: {names}{more}'))
        parts.append(facts_list({label: value for label, value in facts if value}))
        if len(parts) > 20:
            parts.append(tag('p', f'There are {len(found):,} environments; these are some.'))
            break
    parts.append(_commands(view))
    return join(parts)


def _commands(view: View) -> Markup | None:
    commands = [(record, _arguments(record)) for record in view.runs]
    commands = [(record, own) for record, own in commands if own]
    if not commands:
        return None
    if len(commands) == 1:
        return _command('The command', commands[0][1])
    shared = [each for each in commands[0][1] if all(each in own for _, own in commands)]
    rows = []
    for record, own in commands[:MAX_COMMANDS]:
        rest = shlex.join([each for each in own if each not in shared])
        label = view.short_name(record)
        rows.append([Cell(name(label), label), Cell(tag('code', rest), '')])
    note = ''
    if len(commands) > MAX_COMMANDS:
        note = f'{MAX_COMMANDS} of {len(commands):,}; environment.json of each run has its own.'
    listed = table('commands', ['Run', 'and the arguments'], rows, note=note)
    return join(
        (
            _command('All commands start with', shared),
            tag('details', tag('summary', 'The arguments of each run'), listed),
        )
    )


def _command(title: str, arguments: Sequence[str]) -> Markup:
    text = shlex.join(arguments)
    tools = tag(
        'div',
        tag('button', 'Copy the command', type='button', data_copy='command'),
        class_='tools',
        hidden=True,
    )
    return join((tag('h3', title), tag('pre', text, id='command'), tools))


def _arguments(record: Record) -> list[str]:
    """Returns a command as one types it."""
    command = record.environment.get('command')
    if not isinstance(command, list) or not command:
        return []
    program, *arguments = map(str, command)
    path = PurePath(program)
    if path.suffix == '.py' and path.parent.name == 'neptune_jax':
        return ['python', '-m', f'neptune_jax.{path.stem}', *arguments]
    return ['python', program, *arguments] if path.suffix == '.py' else [program, *arguments]
