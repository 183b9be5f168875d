"""Trains an image classifier.

    python -m neptune_jax.main --config=configs/cnn.py
    python -m neptune_jax.main --config=configs/cnn.py --config.optim.learning_rate=0.01 --workdir=runs/a

Any field of the config file can be set as in the second line; configs/cnn.py explains them all.
Started again with the same flags, an interrupted run goes on from its last checkpoint.
"""

import os
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from neptune_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A Python file whose get_config() returns the experiment.'
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The run directory; runs/NAME for the config file NAME.py where it is not set.'
)


def parse_flags(argv):
    """Parses the command line; raises UserError where it, or the config file, is wrong."""
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:
        raise UserError(_explain(argv, error)) from error
    if len(rest) > 1:
        raise UserError(f'{rest[1]!r} is no flag; flags look like --config=configs/cnn.py')
    if _CONFIG.value is None:
        raise UserError('no --config given; try --config=configs/cnn.py')
    return rest


def _explain(argv, error):
    """Returns one line for what went wrong while flags were parsed and the config was made."""
    path = next((arg.partition('=')[2] for arg in argv if arg.startswith('--config=')), '')
    file = path.partition(':')[0]
    if file and not os.path.isfile(file):
        return f'--config={path}: there is no such file'
    text = ' '.join(str(error.args[0] if error.args else error).split()).strip('\'"')
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(file)]
    if file and frames:
        return f'{file}, line {frames[-1].lineno}: {text}'
    if isinstance(error, AttributeError) and "'get_config'" in text:
        return f'--config={path}: the file has no function get_config()'
    if isinstance(error, AttributeError | KeyError):
        return f'--config: there is no field {text}'
    return text


def main(argv):
    del argv
    name = os.path.splitext(os.path.basename(flags.FLAGS['config'].config_filename))[0]
    # Heavy imports wait until the flags are known to be right.
    from neptune_jax import train

    train.train_and_evaluate(_CONFIG.value, _WORKDIR.value or os.path.join('runs', name))


def run(main, parse_flags):
    """Runs a command: what the user got wrong becomes one line and exit status 2."""
    logging.set_verbosity(logging.ERROR)
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted; the same command goes on from the last checkpoint', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    run(main, parse_flags)
