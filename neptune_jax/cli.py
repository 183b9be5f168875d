"""What every command shares: a config file and overrides as flags, mistakes as one line.

What the user got wrong is told on stderr in one line that starts with `error:`, with exit status 2.
"""

import contextlib
import difflib
import os
import re
import runpy
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from neptune_jax import runs, startup
from neptune_jax.errors import PREEMPTED_STATUS, Preempted, UserError

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A Python file whose get_config() returns the experiment.'
)


def run(main):
    """Runs a command: parses the flags, then calls `main` with the config."""
    # Libraries log the errors that they also raise; what is raised is what a person sees.
    logging.set_verbosity(logging.FATAL)
    startup.prepare()
    with reported():
        app.run(lambda argv: main(CONFIG.value), flags_parser=_parse_flags)


@contextlib.contextmanager
def reported():
    """Ends the process with one line on stderr and a status where the user or a signal is why."""
    try:
        yield
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except Preempted as error:
        print(f'ended by {error}; the same command goes on from here', file=sys.stderr)
        sys.exit(PREEMPTED_STATUS)
    except KeyboardInterrupt:
        sys.exit(130)


def config_name():
    """Returns the name of the config file, less its folder and ending."""
    return os.path.splitext(os.path.basename(flags.FLAGS['config'].config_filename))[0]


def _parse_flags(argv):
    for i, arg in enumerate(argv):
        flag, equals, value = arg.partition('=')
        if flag in ('--config', '-config'):
            path = value if equals else argv[i + 1] if i + 1 < len(argv) else ''
            _check_overrides(argv, _load_config(path))
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(' '.join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f'{rest[1]!r} is no flag; flags look like --config=configs/cnn.py')
    if CONFIG.value is None:
        raise UserError('no --config given; try --config=configs/cnn.py')
    return rest


def _load_config(path):
    """Returns what a config file's get_config() returns; 'FILE:TEXT' passes it the text.

    ml_collections loads the file again. Its own messages bury what the author of the file needs
    to know, the line and the mistake, in a traceback of its own.
    """
    file, *text = path.split(':', 1)
    if not os.path.isfile(file):
        raise UserError(f'--config={path}: there is no such file')
    try:
        get_config = runpy.run_path(file).get('get_config')
        if get_config is None:
            raise UserError(f'--config={path}: the file has no function get_config()')
        return get_config(*text)
    except SyntaxError as error:
        raise UserError(f'{error.filename}, line {error.lineno}: {error.msg}') from error
    except (AttributeError, KeyError, TypeError, ValueError, ImportError, NameError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == file), 0)
        text = str(error.args[0]) if error.args else repr(error)
        hint = re.search(r'Did you mean "(.*)" instead of "(.*)"', text)
        if hint:
            text = f'there is no field {hint[2]!r}; did you mean {hint[1]!r}?'
        raise UserError(f'{file}, line {line}: {" ".join(text.split())}') from error


def _check_overrides(argv, config):
    """Raises UserError where a flag sets a field that the config does not have."""
    fields = list(runs.flatten(config.to_dict(), '.'))
    groups = {field.rpartition('.')[0] for field in fields}
    for arg in argv:
        override = re.match(r'--?(?:no)?config\.([^=]+)', arg)
        if override and override[1] not in groups.union(fields):
            nearest = difflib.get_close_matches(override[1], fields, n=1, cutoff=0)
            raise UserError(
                f'--config.{override[1]}: there is no such field; did you mean {nearest[0]}?'
            )
