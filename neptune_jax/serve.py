"""Answers requests over HTTP with finished runs or exported models.

    python -m neptune_jax.serve runs/cnn
    python -m neptune_jax.serve runs/cnn model/ --port=8080 --host=0.0.0.0 --token_file=token

http://127.0.0.1:8000/ is a page for images; docs/serving.md has all addresses. Of several models,
?model=NAME chooses one, by the last part of its path. On SIGTERM the server answers what has been
asked, and ends.
"""

import importlib.util
from pathlib import Path

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.errors import UserError
from neptune_jax.runs import files

PORT = flags.DEFINE_integer('port', 8000, 'The port; 0: a free one.', 0, 65535)
HOST = flags.DEFINE_string('host', '127.0.0.1', 'The address; 0.0.0.0: all of this machine.')
TOKEN_FILE = flags.DEFINE_string('token_file', None, 'A file with the token that requests need.')
NO_TOKEN = flags.DEFINE_bool('no_token', False, 'Let all machines ask that reach --host.')
CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', 'best, last, or a step.')
RESIZE = flags.DEFINE_string('resize', '', 'stretch, crop or pad other sizes.')
BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 64, 'Images computed at once, at the most.', lower_bound=1, upper_bound=4096
)
QUEUE = flags.DEFINE_integer('queue', 256, 'Images that may wait; then 503.', lower_bound=1)
TIMEOUT = flags.DEFINE_float('timeout', 10, 'Seconds to an answer; then 504.', lower_bound=0.001)
MAX_BYTES = flags.DEFINE_integer('max_bytes', 2**24, 'Of a request; then 413.', lower_bound=1)
MAX_PIXELS = flags.DEFINE_integer(
    'max_pixels', 50_000_000, 'Of an image; then 413, before it is decoded.', lower_bound=1
)
BODY_TIMEOUT = flags.DEFINE_float(
    'body_timeout', 20, 'Seconds in which a request has to arrive; then 408.', lower_bound=0.001
)
CONNECTIONS = flags.DEFINE_integer('connections', 512, 'Open at once; then 503.', lower_bound=1)
NEEDED = ('starlette', 'uvicorn', 'httptools', 'prometheus_client')


def main(folders: list[str]) -> None:
    """Serves until a signal."""
    if not folders:
        raise UserError('no model given; try: python -m neptune_jax.serve runs/cnn')
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise UserError(f'{name} is missing: pip install "neptune_jax[serve]"')
    folders = [files.expand_user(folder, 'RUN_DIR') for folder in folders]
    token_file = TOKEN_FILE.value and files.expand_user(TOKEN_FILE.value, '--token_file')
    runs = [folder for folder in folders if not Path(folder, 'preprocessing.json').is_file()]
    for folder in runs:  # the others are exported models
        cli.prepare_for_run(folder)
    with exits.interruptible():
        from neptune_jax.serving import server
        from neptune_jax.serving.limits import Limits

        server.serve(
            folders,
            host=HOST.value,
            port=PORT.value,
            access=server.access(HOST.value, token_file, NO_TOKEN.value),
            batch_size=BATCH_SIZE.value,
            checkpoint=CHECKPOINT.value,
            resize=RESIZE.value,
            limits=Limits(
                body_bytes=MAX_BYTES.value,
                body_seconds=BODY_TIMEOUT.value,
                answer_seconds=TIMEOUT.value,
                pixels=MAX_PIXELS.value,
                waiting=QUEUE.value,
                connections=CONNECTIONS.value,
            ),
        )


if __name__ == '__main__':
    cli.run(main, positional='RUN_DIR_OR_EXPORT_DIR...')
