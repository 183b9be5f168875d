"""What every command shares: flags, a config file with overrides, mistakes as one line.

A mistake of the user becomes one line on stderr that starts with `error:`, with exit status 2.
"""

import contextlib
import difflib
import io
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from neptune_jax import defaults, exits, terminal
from neptune_jax.devices import backend, startup
from neptune_jax.errors import PREEMPTED_STATUS, Preempted, UserError
from neptune_jax.runs import files, reader

_HELP_FLAGS = re.compile(r'--?(h|\?|help|helpshort|helpfull|helpxml)(=.*)?')

# The command line with the contents of flag files, once it is known. The flags of ml_collections
# would read sys.argv when they are defined, where nobody could report a mistake.
_ARGUMENTS: list[str] = []

FORMATS = ('text', 'json', 'csv')  # of what a command prints

# Groups that may be given as a whole, because what they hold is free.
_FREE_GROUPS = {'model', 'optim.options'}


def define_config() -> flags.FlagHolder:
    """Defines --config for a command that takes a config; returns the flag's holder."""
    holder = config_flags.DEFINE_config_file(
        'config',
        None,
        'A Python file whose get_config() returns the experiment.',
        sys_argv=_ARGUMENTS,
    )
    flags.FLAGS['config'].parser = _ConfigParser()
    return holder


def define_format() -> flags.FlagHolder:
    """Defines --format for a command with results that programs read; returns the flag's holder.

    With json or csv nothing else is printed on stdout.
    """
    return flags.DEFINE_enum('format', 'text', FORMATS, f'What is printed: {", ".join(FORMATS)}.')


def prepare_for_run(workdir: str) -> None:
    """Prepares JAX for the model of a finished run. Call it before anything imports JAX.

    Raises:
        UserError: the directory holds no run, or JAX finds no device.
    """
    if reader.read_run_config(workdir).get('model', {}).get('dtype') == 'bfloat16':
        startup.prepare_bfloat16()
    backend.import_jax()
    backend.devices()


def run(main: Callable[[list[str]], None], positional: str = '') -> None:
    """Runs a command: parses its flags, then calls `main` with the positional arguments.

    Args:
        main: the command.
        positional: what its positional arguments are, for the help text; '': it takes none.
    """
    exits.prepare()
    # Libraries log errors that they also raise. The user should see each of them once.
    logging.set_verbosity(logging.FATAL)
    startup.prepare()
    with reported():
        app.run(
            lambda argv: main(argv[1:]), flags_parser=lambda argv: _parse_flags(argv, positional)
        )


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Ends the process with one line and a status if the user or a signal is the reason."""
    try:
        yield
    except UserError as error:
        # A name in the message may hold a line feed.
        print(f'error: {" ".join(str(error).splitlines())}', file=sys.stderr)
        sys.exit(2)
    except Preempted as error:
        print(f'ended by {error}; the same command continues from here', file=sys.stderr)
        exits.end_interrupted(PREEMPTED_STATUS, error)
    except KeyboardInterrupt as error:
        exits.end_interrupted(exits.CTRL_C_STATUS, error)


def config_name() -> str:
    """Returns 'NAME' for --config=FOLDER/NAME.py and 'NAME_TEXT' for FOLDER/NAME.py:TEXT."""
    file, _, text = config_file().partition(':')
    name = os.path.splitext(os.path.basename(file))[0]
    return '_'.join([name, *re.findall(r'\w+', text)])


def config_file() -> str:
    """Returns the value of --config: 'FILE' or 'FILE:TEXT'."""
    flag: Any = flags.FLAGS['config']  # of ml_collections; it knows the file
    return flag.config_filename


def config_arguments() -> list[str]:
    """Returns the arguments of the command line that set fields of the config, as given."""
    found: list[str] = []
    for number, arg in enumerate(_ARGUMENTS):
        if re.match(r'--?(no)?config\.', arg):
            found.append(arg)
            follows = _ARGUMENTS[number + 1 : number + 2]
            if '=' not in arg and follows and not follows[0].startswith('-'):
                found += follows  # the value of --config.FIELD VALUE
    return found


def read_sweep() -> list[dict[str, Any]] | None:
    """Returns what the config file's get_sweep() yields; None if it has no such function.

    'FILE:TEXT' passes the text to it, as it does to get_config().

    Raises:
        UserError: the function fails, or yields anything but dicts of fields and their values.
    """
    file, *text = config_file().split(':', 1)
    file = files.expand_user(file, '--config')
    try:
        get_sweep = runpy.run_path(file).get('get_sweep')
        points = None if get_sweep is None else list(get_sweep(*text))
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the file does
        raise UserError(f'{_place(error, file)}: get_sweep(): {_describe(error)}') from error
    for point in points or ():
        if not (isinstance(point, dict) and all(isinstance(name, str) for name in point)):
            raise UserError(
                f'{file}: get_sweep() must yield dicts such as {{"seed": 0}}, not {point!r:.80}'
            )
    return points


def _parse_flags(argv, positional):
    if any(_HELP_FLAGS.fullmatch(arg) for arg in argv):
        print(_help_text(positional))
        sys.exit()
    try:
        _ARGUMENTS[:] = _arguments(argv)
        rest = flags.FLAGS(_ARGUMENTS)
    except UserError:
        raise
    except Exception as error:  # of Absl and ml_collections: many types, for any malformed flag
        raise UserError(_describe(error)) from error
    if len(rest) > 1 and not positional:
        raise UserError(f'{rest[1]!r} is no flag; flags look like --config=configs/cnn.py')
    if 'format' in flags.FLAGS and flags.FLAGS['format'].value != 'text':
        terminal.to_stderr()
    if 'config' in flags.FLAGS:
        config = flags.FLAGS['config'].value
        if config is None:
            raise UserError('no --config given; try --config=configs/cnn.py')
        defaults.check(config)  # before anything heavy is imported
        if config.model.get('dtype') == 'bfloat16':
            startup.prepare_bfloat16()
        backend.import_jax()
    return rest


def _arguments(argv):
    """Returns the command line with what flag files hold, and underscores in names of flags."""
    program, *arguments = argv
    # Absl's flags have underscores; accept dashes in their names too.
    arguments = [re.sub('^--?[a-z][a-z-]*', _underscored, arg) for arg in arguments]
    warnings = io.StringIO()
    try:
        with contextlib.redirect_stderr(warnings):
            arguments = flags.FLAGS.read_flags_from_files(arguments)
    except (flags.Error, OSError, ValueError) as error:
        raise UserError(f'--flagfile: {_describe(error)}') from error
    if warnings.getvalue():  # a file that names itself
        raise UserError(f'--flagfile: {" ".join(warnings.getvalue().split())}')
    given = [number for number, arg in enumerate(arguments) if re.match('--?config=', arg)]
    if given:  # the last one counts; ml_collections would define the flags of fields for each
        arguments[given[0]] = arguments[given[-1]]
    return [program, *(arg for number, arg in enumerate(arguments) if number not in given[1:])]


def _underscored(match):
    name = match[0]
    dashes = name[: len(name) - len(name.lstrip('-'))]
    return dashes + name.lstrip('-').replace('-', '_')


def _help_text(positional):
    main = sys.modules['__main__']
    own = {flag.name: flag for flag in flags.FLAGS.get_flags_for_module(sys.argv[0])}
    lines = [main.__doc__.strip(), '', 'Flags:']
    if positional:
        lines.insert(-1, f'Arguments: {positional}\n')
    if 'config' in flags.FLAGS:
        groups = dict.fromkeys(name.rpartition('.')[0] for name in defaults.FIELDS)
        lines += [
            '  --config=FILE  A Python file whose get_config() returns the experiment.',
            '  --config.GROUP.FIELD=VALUE  Sets a field, as in --config.optim.learning_rate=0.01',
            f'      groups: {", ".join(filter(None, groups))}; docs/configs.md has all fields',
        ]
    for name, flag in own.items():
        if name != 'config':
            value = '' if flag.boolean else '=VALUE'
            lines.append(f'  --{name}{value}  {flag.help}')
    return '\n'.join(lines)


class _ConfigParser(flags.ArgumentParser):
    """Loads the config file. Its messages name the line of the file and the mistake."""

    def parse(self, path: str) -> ConfigDict:
        config = _load_config(path)
        given = (re.match(r'--?(?:no)?config\.([^=]+)', arg) for arg in _ARGUMENTS)
        overrides = [match[1] for match in given if match]
        defaults.check_names(config)
        if any(name.startswith('model.') and name[6:] not in config.model for name in overrides):
            from neptune_jax import models  # imports Flax, which takes time

            with config.unlocked():
                config.model = models.complete_fields(config.model)
        for name in overrides:
            check_field(name, config)
            if name in _groups(config) and name not in _FREE_GROUPS:
                raise UserError(
                    f'--config.{name}: {name} is a group; set its fields one by one, as in '
                    '--config.optim.learning_rate=0.01'
                )
        return config.lock()


def check_field(name: str, config: ConfigDict) -> None:
    """Raises UserError, naming the nearest field, if a config has no field or group `name`."""
    fields = list(files.flatten(config.to_dict(), '.'))
    groups = set(_groups(config))
    if name not in groups.union(fields):
        nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0)
        hint = f'; did you mean {nearest[0]}?' if nearest else ''
        raise UserError(f'--config.{name}: there is no such field{hint}')


def _groups(config, prefix=''):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield f'{prefix}{name}'
            yield from _groups(value, f'{prefix}{name}.')


def _load_config(path):
    """Returns what a config file's get_config() returns; 'FILE:TEXT' passes the text to it."""
    file, *text = path.split(':', 1)
    file = files.expand_user(file, '--config')
    if not os.path.isfile(file):
        found = 'is no file' if os.path.exists(file) else 'there is no such file'
        raise UserError(f'--config={path}: {found}')
    try:
        get_config = runpy.run_path(file).get('get_config')
        if get_config is None:
            raise UserError(f'--config={path}: the file has no function get_config()')
        config = get_config(*text)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the file does
        raise UserError(f'{_place(error, file)}: {_describe(error)}') from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f'--config={path}: get_config() returns {type(config).__name__}, not a ConfigDict'
        )
    return ConfigDict(config) if isinstance(config, FrozenConfigDict) else config


def _place(error, file):
    """Returns the file and the line of a config file's mistake."""
    if isinstance(error, SyntaxError):
        file, line = error.filename or file, error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
    return f'{file}, line {line}' if line else file


def _describe(error):
    """Returns an exception of a config file or of the flags as one line."""
    try:
        text = str(error.args[0] if error.args and isinstance(error, KeyError) else error)
    except Exception:  # an exception of the file's own
        text = ''
    hint = re.search(r'Did you mean "(.*)" instead of "(.*)"', text)
    if hint:
        return f'there is no field {hint[2]!r}; did you mean {hint[1]!r}?'
    if isinstance(error, SyntaxError):
        text = error.msg
    known = (AttributeError, KeyError, TypeError, ValueError, ImportError, NameError, SyntaxError)
    if not (text and isinstance(error, (*known, flags.Error))):
        text = f'{type(error).__name__}: {text}'
    text = ' '.join(text.split())
    return text if len(text) <= 500 else f'{text[:300]} ... {text[-100:]}'
