"""One server process: it loads models, listens, answers, and ends in good order on SIGTERM."""

import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvicorn

from neptune_jax import exits, terminal
from neptune_jax.errors import UserError, is_out_of_memory
from neptune_jax.serving import app, connections, models
from neptune_jax.serving.batching import Batcher
from neptune_jax.serving.guard import LOOPBACK, Access
from neptune_jax.serving.limits import Limits
from neptune_jax.serving.metrics import Metrics
from neptune_jax.serving.service import Model

SECONDS_TO_END = 4  # for requests that are not answered yet at SIGTERM
SHORTEST_TOKEN = 16  # characters


def serve(
    folders: Sequence[str],
    *,
    host: str,
    port: int,
    access: Access,
    limits: Limits,
    batch_size: int,
    checkpoint: str = 'best',
    resize: str = '',
) -> None:
    """Serves models until a signal. SIGTERM ends the process with status 0.

    Args:
        folders: run directories and exported models.
        host: the address to listen on.
        port: of it; 0: a free one.
        access: who may ask.
        limits: what they may take.
        batch_size: images computed at once, at the most.
        checkpoint: of runs: 'best', 'last' or a step.
        resize: how files of another size become images; '': as in the training.

    Raises:
        UserError: a folder, the address or the batch size cannot be used.
    """
    signal.signal(signal.SIGTERM, lambda *_: exits.at_once(0))
    listener = listen(host, port)
    predictors = models.load(folders, checkpoint, resize)
    for name, predictor in predictors.items():
        shape = 'x'.join(map(str, predictor.image_shape))
        terminal.line(
            f'{name}: {predictor.workdir}, step {predictor.step:,}, images of {shape}, '
            f'{len(predictor.classes)} classes'
        )
        for note in predictor.notes:
            terminal.line(f'  {note}')
    metrics = Metrics()
    served = {
        name: Model(
            predictor,
            Batcher(
                predictor, name=name, limit=batch_size, capacity=limits.waiting, metrics=metrics
            ),
        )
        for name, predictor in predictors.items()
    }
    failures: list[BaseException] = []
    began = time.monotonic()

    def compiled(error: BaseException | None) -> None:
        if error is not None:
            failures.append(error)
            server.should_exit = True
        elif all(model.batcher.is_ready for model in served.values()):
            terminal.line(f'ready after {time.monotonic() - began:.1f} s')

    server = new_server(served, access, limits, metrics, compiled)
    terminal.line(f'listening on {_address(listener)} (Ctrl-C ends)')
    # Uvicorn raises a signal that has ended it again. SIGTERM then ends the process here.
    server.run(sockets=[listener])
    if failures:
        _report(failures[0], batch_size)


def new_server(
    served: Mapping[str, Model],
    access: Access,
    limits: Limits,
    metrics: Metrics,
    compiled: Callable[[BaseException | None], None],
) -> uvicorn.Server:
    """Returns a server of models, which is not started. `app.create` explains the arguments."""
    application = app.create(
        served, access=access, limits=limits, metrics=metrics, compiled=compiled
    )
    return uvicorn.Server(
        uvicorn.Config(
            application,
            http=connections.limited(limits, metrics),
            ws='none',
            lifespan='on',
            log_config=None,
            log_level='critical',  # what clients do wrong is counted, not logged
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_END,
        )
    )


def _report(error, batch_size):
    if is_out_of_memory(error):
        raise UserError(
            f'there is too little memory for batches of {batch_size} images; give a smaller '
            '--batch_size'
        ) from error
    raise error


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens. Raises UserError if the address cannot be used."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise UserError(f'cannot listen on --host={host} --port={port}: {reason}') from error


def _address(listener):
    host, port = listener.getsockname()[:2]
    return f'http://{f"[{host}]" if ":" in host else host}:{port}/'


def access(host: str, token_file: str | None, no_token: bool) -> Access:
    """Returns who may ask a server on a host.

    Args:
        host: the address to listen on.
        token_file: a file with the token that requests need, or None.
        no_token: let everybody ask who reaches the address.

    Raises:
        UserError: no token for a host that other machines reach, or one that cannot be used.
    """
    if token_file is not None and no_token:
        raise UserError('give --token_file or --no_token, not both')
    is_loopback = host in LOOPBACK or host.startswith('127.')
    if not is_loopback and token_file is None and not no_token:
        raise UserError(
            f'other machines reach --host={host}: give --token_file=FILE with a token that '
            'requests need, made by: openssl rand -hex 32; or --no_token to let everybody ask'
        )
    token = _read_token(token_file) if token_file is not None else None
    return Access(LOOPBACK | {host.lower()} if is_loopback else None, token)


def _read_token(path):
    try:
        token = Path(path).read_bytes().strip()
    except OSError as error:
        raise UserError(f'--token_file={path} cannot be read: {error.strerror}') from error
    if len(token) < SHORTEST_TOKEN or not token.isascii() or len(token.split()) > 1:
        raise UserError(
            f'--token_file={path} must hold one word of {SHORTEST_TOKEN} characters or more, such '
            'as: openssl rand -hex 32'
        )
    return token
