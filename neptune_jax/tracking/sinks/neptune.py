"""Neptune, through its own client: a server of one's own, as the hosted one is closed.

The client can hang, wait for minutes and raise what it likes; that is why it only ever runs in a
process that sends records, never in one that trains.
"""

import base64
import contextlib
import ipaddress
import json
import logging
import os
import re
import shutil
import threading
import warnings
from urllib.parse import urlsplit

import requests

from neptune_jax.errors import UserError
from neptune_jax.tracking.sinks import Unreachable

_SECONDS_TO_ANSWER = 5
_LARGEST_INT = 2**31 - 1

# Exceptions of the client, of three families, that mean the same.
_REFUSALS = (
    *('NeptuneInvalidApiTokenException', 'Unauthorized', 'Forbidden', 'HTTPUnauthorized'),
    'HTTPForbidden',
)


@contextlib.contextmanager
def open_sink(record):
    """Opens the run with the record's id, or makes it, on the server that the token names."""
    address = _server(os.environ.get('NEPTUNE_API_TOKEN', ''))
    project = record.project or os.environ.get('NEPTUNE_PROJECT', '')
    if project.count('/') != 1:
        raise UserError(
            f"neptune.project={project!r} names no project; give 'WORKSPACE/PROJECT', or set "
            'NEPTUNE_PROJECT'
        )
    _ask(address)
    warnings.simplefilter(
        'ignore'
    )  # the client and what it builds on warn when imported, and later
    import neptune  # takes seconds

    if _is_loopback(address):
        os.environ.setdefault('OAUTHLIB_INSECURE_TRANSPORT', '1')
    os.environ.setdefault('NEPTUNE_RETRIES_TIMEOUT', '10')  # seconds; it would take 60

    # What the client keeps on the disk is in the run's records already.
    queue = record.workdir / 'sync/neptune'
    shutil.rmtree(queue, ignore_errors=True)
    os.environ['NEPTUNE_DATA_DIRECTORY'] = str(queue)
    refusals, deaths = _Refusals(), []
    logger = logging.getLogger('neptune')
    logger.handlers = [refusals]
    threading.excepthook = lambda death: deaths.append(death.exc_value)
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
    yield _Neptune(run, address, refusals, deaths)
    run.stop(seconds=5)
    shutil.rmtree(queue, ignore_errors=True)


class _Neptune:
    def __init__(self, run, server, refusals, deaths):
        self._run, self._server = run, server
        self._refusals = refusals
        self._deaths = deaths  # why the client's threads have ended
        self._last = {}  # the last value of each series since the last flush
        self.address = run.get_url()

    def has(self, key):
        return self._run.exists(key)

    def log(self, key, points):
        steps, times, values = zip(*points, strict=True)
        self._run[key].extend(list(values), steps=list(steps), timestamps=list(times))
        self._last[key] = values[-1]

    def assign(self, values):
        for key, value in values.items():
            self._run[key] = _to_type(value)
        if 'summary/status' in values:
            self._run['sys/failed'] = values['summary/status'] == 'failed'

    def upload(self, key, path):
        self._run[key].upload(str(path))

    def flush(self):
        try:
            self._run.wait()
            refused = self._refusals.take()
            # Points that were sent before are refused, which is as it should be.
            if refused and not all('strictly increasing' in text for text in refused):
                raise UserError(f'{self._server} refused {len(refused):,} values: {refused[0]}')
            if refused:
                self._check_last(refused)
        except UserError:
            raise
        except Exception as error:
            raise _explain(self._deaths[0] if self._deaths else error, self._server) from error
        self._last = {}

    def _check_last(self, refused):
        """Raises UserError unless the last point of each series is there, sent now or before."""
        for key, value in self._last.items():
            mine = [text for text in refused if f': {key}.' in text]
            if mine and self._fetch_last(key) != value:
                raise UserError(f'{self._server} refused {len(mine):,} points: {mine[0]}')

    def _fetch_last(self, key):
        from neptune.exceptions import FetchAttributeNotFoundException

        try:
            return self._run[key].fetch_last()
        except FetchAttributeNotFoundException:
            return None


def _to_type(value):
    """Returns a value as a type that Neptune has: integers of 32 bits, no None, no list."""
    if value is None or isinstance(value, list):
        return json.dumps(value)
    if type(value) is int and abs(value) > _LARGEST_INT:
        return float(value)
    return value


class _Refusals(logging.Handler):
    """Collects what the client logs as errors: values that the server refused."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self._texts = []

    def emit(self, record):
        self._texts.append(_one_line(record.args[0] if record.args else record.msg))

    def take(self):
        texts, self._texts = self._texts, []
        return texts


def _server(token):
    """Returns the address in a token."""
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
            'stay where they are, and --to=tensorboard or --to=mlflow reads them'
        )
    return address.rstrip('/')


def _is_loopback(address):
    host = urlsplit(address).hostname
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == 'localhost'


def _ask(address):
    """Asks the server for what the client asks first; that would wait for the answer for ever."""
    self_signed = os.environ.get('NEPTUNE_ALLOW_SELF_SIGNED_CERTIFICATE', '').lower()
    try:
        answer = requests.get(
            f'{address}/api/backend/swagger.json',
            timeout=_SECONDS_TO_ANSWER,
            allow_redirects=False,
            verify=self_signed not in ('1', 'true'),
        )
    except requests.Timeout as error:
        raise Unreachable(f'{address} does not answer') from error
    except requests.exceptions.SSLError as error:
        raise UserError(
            f'{address} has a certificate that is not trusted ({_one_line(error)}); '
            'REQUESTS_CA_BUNDLE names one to trust'
        ) from error
    except requests.RequestException as error:
        raise Unreachable(f'{address} cannot be reached: {_reason(error)}') from error
    if answer.status_code >= 500:
        raise Unreachable(f'{address} answers with status {answer.status_code}')
    if answer.is_redirect:
        raise UserError(
            f'{address} answers with a redirect to {answer.headers["Location"]}, as a page to sign '
            'in does, not a Neptune server; check the address in NEPTUNE_API_TOKEN'
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


def _reason(error):
    """Returns the innermost cause of a failed connection, as the system words it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return _one_line(getattr(error, 'strerror', None) or error)


def _explain(error, address):
    """Returns what to raise for an exception of the client, which has them of many families."""
    name, text = type(error).__name__, _one_line(error)
    if isinstance(error, requests.RequestException) or 'ConnectionLost' in name:
        return Unreachable(f'{address} cannot be reached ({name})')
    if name in _REFUSALS:
        return UserError(f'{address} refuses the account ({name}); check NEPTUNE_API_TOKEN')
    if name == 'InsecureTransportError':
        return UserError(
            f'{address} is not encrypted; use https, or set OAUTHLIB_INSECURE_TRANSPORT=1 where '
            'the network is your own'
        )
    return UserError(f'{address} cannot be used: {name}: {text}')


def _one_line(text):
    text = re.sub(r'\x1b\[[0-9;]*m', '', str(text))
    return ' '.join(text.split())[:300]
