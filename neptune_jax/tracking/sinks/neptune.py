"""Neptune, through its own client (neptune 1.x), to a self-hosted server.

The client can hang, block for minutes and raise many kinds of exceptions. So it runs only in the
process that sends records, never in the one that trains.
"""

import base64
import contextlib
import ipaddress
import json
import logging
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from neptune_jax.errors import UserError
from neptune_jax.tracking.sinks import Point, Record, Sink, Unreachable, Value

_ANSWER_SECONDS = 5
_MAX_INT = 2**31 - 1

# The client has exceptions of three libraries for an account that the server refuses.
_REFUSALS = (
    'NeptuneInvalidApiTokenException',
    'Unauthorized',
    'Forbidden',
    'HTTPUnauthorized',
    'HTTPForbidden',
)


@contextlib.contextmanager
def open_sink(record: Record) -> Iterator[Sink]:
    """Opens the run with the record's id, on the server that $NEPTUNE_API_TOKEN names.

    Creates the run if there is none.
    """
    address = _server_address(os.environ.get('NEPTUNE_API_TOKEN', ''))
    project = record.project or os.environ.get('NEPTUNE_PROJECT', '')
    if project.count('/') != 1:
        raise UserError(
            f"neptune.project={project!r} names no project; give 'WORKSPACE/PROJECT', or set "
            'NEPTUNE_PROJECT'
        )
    _check_server(address)
    # The records are in the run directory, so the client's own copy on the disk is not needed.
    queue = record.workdir / 'sync/neptune'
    shutil.rmtree(queue, ignore_errors=True)
    os.environ['NEPTUNE_DATA_DIRECTORY'] = str(queue)
    neptune = _import_client(is_loopback=_is_loopback(address))
    refusals = _Refusals()
    logger = logging.getLogger('neptune')
    logger.handlers = [refusals]
    thread_errors = []
    threading.excepthook = lambda thread: thread_errors.append(thread.exc_value)
    try:
        run = neptune.init_run(
            project=project,
            custom_run_id=record.id,
            mode='async',
            name=record.name,
            description=record.description,
            tags=record.tags,
            source_files=[],
            git_ref=False,
            capture_stdout=False,
            capture_stderr=False,
            capture_traceback=False,
            capture_hardware_metrics=record.hardware,
            monitoring_namespace='monitoring',
        )
    except Exception as error:
        raise _explain(error, address) from error
    yield _Neptune(run, address, refusals, thread_errors)
    run.stop(seconds=5)
    shutil.rmtree(queue, ignore_errors=True)


def _import_client(is_loopback):
    """Imports the client, with settings that it reads when it is imported."""
    os.environ.setdefault('NEPTUNE_RETRIES_TIMEOUT', '10')  # seconds; the default is 60
    if is_loopback:  # elsewhere an unencrypted connection stays an error
        os.environ.setdefault('OAUTHLIB_INSECURE_TRANSPORT', '1')
    warnings.simplefilter('ignore')  # the client and its dependencies warn
    # Jsonschema checks international URIs with this package if it can be imported, which takes
    # longer than everything else that the client imports. Neptune does not use them.
    sys.modules.setdefault('rfc3987_syntax', None)
    import neptune

    return neptune


class _Neptune:
    def __init__(
        self,
        run: Any,
        server: str,
        refusals: '_Refusals',
        thread_errors: list[BaseException | None],
    ) -> None:
        self._run = run
        self._server = server
        self._refusals = refusals
        self._thread_errors = thread_errors  # of the client's threads
        self._last: dict[str, float] = {}  # the last value of each series since the last flush
        self.address = run.get_url()

    def has(self, key: str) -> bool:
        return self._run.exists(key)

    def log(self, key: str, points: Sequence[Point]) -> None:
        steps, times, values = zip(*points, strict=True)
        self._run[key].extend(list(values), steps=list(steps), timestamps=list(times))
        self._last[key] = values[-1]

    def assign(self, values: dict[str, Value]) -> None:
        for key, value in values.items():
            self._run[key] = _convert(value)
        if 'summary/status' in values:
            self._run['sys/failed'] = values['summary/status'] == 'failed'

    def upload(self, key: str, path: Path) -> None:
        self._run[key].upload(str(path))

    def flush(self) -> None:
        try:
            self._run.wait()
            refused = self._refusals.take()
            # The server refuses points that it already has, which is right.
            if refused and not all('strictly increasing' in text for text in refused):
                raise UserError(f'{self._server} refused {len(refused):,} values: {refused[0]}')
            if refused:
                self._check_last_points(refused)
        except UserError:
            raise
        except Exception as error:
            cause = self._thread_errors[0] if self._thread_errors else error
            raise _explain(cause, self._server) from error
        self._last = {}

    def _check_last_points(self, refused):
        """Raises UserError unless the server holds the last point of each series."""
        for key, value in self._last.items():
            texts = [text for text in refused if f': {key}.' in text]
            if texts and self._fetch_last(key) != value:
                raise UserError(f'{self._server} refused {len(texts):,} points: {texts[0]}')

    def _fetch_last(self, key):
        from neptune.exceptions import FetchAttributeNotFoundException

        try:
            return self._run[key].fetch_last()
        except FetchAttributeNotFoundException:
            return None


def _convert(value):
    """Converts a value to a type that Neptune has: no None, no list, integers of 32 bits."""
    if value is None or isinstance(value, list):
        return json.dumps(value)
    if type(value) is int and abs(value) > _MAX_INT:
        return float(value)
    return value


class _Refusals(logging.Handler):
    """Collects the errors that the client logs: values that the server refused."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._texts: list[str] = []

    def emit(self, record):
        self._texts.append(_one_line(record.args[0] if record.args else record.msg))

    def take(self):
        texts, self._texts = self._texts, []
        return texts


def _server_address(token):
    """Returns the address of the server that a token names."""
    if not token:
        raise UserError('NEPTUNE_API_TOKEN is not set; it names the server and the account')
    try:
        content = json.loads(base64.b64decode(token.strip(), validate=True))
        address = content.get('api_url') or content['api_address']
        host = urlsplit(address).hostname
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            'NEPTUNE_API_TOKEN is malformed; copy it again from the page of your account'
        ) from error
    if not host:
        raise UserError(f'NEPTUNE_API_TOKEN names no server but {address!r}')
    if host == 'neptune.ai' or host.endswith('.neptune.ai'):
        raise UserError(
            f'NEPTUNE_API_TOKEN names {host}, but hosted Neptune closed on 2026-03-05; the results '
            'stay in the run directory, and --to=tensorboard or --to=mlflow can read them'
        )
    return address.rstrip('/')


def _is_loopback(address):
    host = urlsplit(address).hostname
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == 'localhost'


def _check_server(address):
    """Requests the document that the client requests first.

    The client would wait for it without a time limit, and would fail on a page or a redirect with
    an exception that says nothing.
    """
    self_signed = os.environ.get('NEPTUNE_ALLOW_SELF_SIGNED_CERTIFICATE', '').lower()
    try:
        answer = requests.get(
            f'{address}/api/backend/swagger.json',
            timeout=_ANSWER_SECONDS,
            allow_redirects=False,
            verify=self_signed not in ('1', 'true'),
        )
    except requests.Timeout as error:
        raise Unreachable(f'{address} does not answer') from error
    except requests.exceptions.SSLError as error:
        raise UserError(
            f'{address} has a certificate that is not trusted ({_one_line(error)}); set '
            'REQUESTS_CA_BUNDLE to a file with the certificate of its authority'
        ) from error
    except requests.RequestException as error:
        raise Unreachable(f'{address} cannot be reached: {_innermost(error)}') from error
    if answer.status_code >= 500:
        raise Unreachable(f'{address} answers with status {answer.status_code}')
    if answer.is_redirect:
        raise UserError(
            f'{address} answers with a redirect to {answer.headers["Location"]}, as a login page '
            'does, not a Neptune server; check the address in NEPTUNE_API_TOKEN'
        )
    if answer.status_code in (401, 403):
        raise UserError(
            f'{address} refuses the account (status {answer.status_code}); check NEPTUNE_API_TOKEN'
        )
    try:
        answer.raise_for_status()
        answer.json()['paths']
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{address} does not answer as a Neptune server does; check the address in '
            'NEPTUNE_API_TOKEN'
        ) from error


def _innermost(error):
    """Returns the message of the innermost cause of a failed connection."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return _one_line(getattr(error, 'strerror', None) or error)


def _explain(error, address):
    """Returns the exception to raise for an exception of the client, of whatever library."""
    name, text = type(error).__name__, _one_line(error)
    if isinstance(error, requests.RequestException) or 'ConnectionLost' in name:
        return Unreachable(f'{address} cannot be reached ({name})')
    if name in _REFUSALS:
        return UserError(f'{address} refuses the account ({name}); check NEPTUNE_API_TOKEN')
    if name == 'InsecureTransportError':
        return UserError(
            f'{address} is not encrypted; use https, or set OAUTHLIB_INSECURE_TRANSPORT=1 if you '
            'trust the network'
        )
    return UserError(f'{address} cannot be used: {name}: {text}')


def _one_line(text):
    text = re.sub(r'\x1b\[[0-9;]*m', '', str(text))  # without colours
    return ' '.join(text.split())[:300]
