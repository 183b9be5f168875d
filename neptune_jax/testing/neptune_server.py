"""A Neptune server for tests: as much of the protocol as the client `neptune` 1.14 needs.

    with neptune_server.serve() as tracker:
        ...  # start a process with NEPTUNE_API_TOKEN=tracker.token
        tracker.runs['my run'].series['train/loss']  # [(step, milliseconds, value), ...]

`start` starts the same server as a process, to be frozen or killed:

    python -m neptune_jax.testing.neptune_server --record=FILE

It prints its token, keeps the runs in FILE, and continues with the runs that it finds there.
"""

import argparse
import base64
import collections
import contextlib
import dataclasses
import datetime
import hashlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import traceback
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Files larger than this are uploaded in parts. The real server has 5 MiB.
PART_SIZE = 2**20

# The parameters of each operation and where they are. The client needs a declaration of each.
_FILE = 'query:experimentIdentifier query:attribute'
_OPERATIONS = {
    'getClientConfig': 'header:X-Neptune-Api-Token query:alpha',
    'exchangeApiToken': 'header:X-Neptune-Api-Token',
    'getProject': 'query:projectIdentifier',
    'createExperiment': 'header:X-Neptune-CliVersion body:experimentCreationParams',
    'getExperimentAttributes': 'query:experimentId',
    'getFloatSeriesAttribute': 'query:experimentId query:attribute',
    'ping': 'query:experimentId',
    'executeOperations': 'query:experimentId body:operations',
    'fileAtomUpload': f'{_FILE} query:ext',
    'fileAtomMultipartUploadStart': f'{_FILE} query:ext query:totalLength',
    'fileAtomMultipartUploadPart': f'{_FILE} query:uploadId',
    'fileAtomMultipartUploadFinish': f'{_FILE} query:uploadId',
}

_KINDS = {
    **{f'assign{kind.title()}': kind for kind in 'float int bool string datetime'.split()},
    **{f'log{kind.title()}s': f'{kind}Series' for kind in 'float string image'.split()},
    **{f'clear{kind.title()}Series': f'{kind}Series' for kind in 'float string image'.split()},
    'insertStrings': 'stringSet',
}


@dataclasses.dataclass
class Run:
    """What a run has received, by path.

    Attributes:
        id: drawn by the server.
        kinds: the server's name of the type ('float', 'stringSet', 'floatSeries', 'file', ...). The
            type of a path never changes.
        attributes: values; a set is a sorted list, a datetime is text (ISO 8601, UTC).
        series: lists of (step, milliseconds, value).
        files: their content.
        extensions: of the files, without the dot.
        rejected: how many points, or values of the wrong type, were rejected.
    """

    id: str
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    series: dict[str, list[tuple]] = dataclasses.field(default_factory=dict)
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    extensions: dict[str, str] = dataclasses.field(default_factory=dict)
    rejected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def apply(self, operation: dict[str, Any], reject: bool) -> list[str]:
        """Applies an operation that the client has sent; returns error messages.

        Args:
            operation: {'path': ..., verb: {...}}.
            reject: whether to reject all points.
        """
        path = operation.pop('path')
        ((verb, content),) = operation.items()
        if verb == 'configFloatSeries':  # the limits of an axis
            return []
        kind = self.kinds.setdefault(path, _KINDS[verb])
        if kind != _KINDS[verb]:
            self.rejected[path] += 1
            return [f'{path} is a {kind}: it cannot take {verb}']
        if verb.startswith('log'):
            return self._append(path, content['entries'], reject)
        if verb.startswith('clear'):
            self.series.pop(path, None)
        elif kind == 'stringSet':
            strings = self.attributes.get(path, [])
            self.attributes[path] = sorted({*strings, *content['values']})
        elif kind == 'datetime':
            seconds = content['valueMilliseconds'] / 1000
            moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            self.attributes[path] = moment.isoformat()
        else:
            self.attributes[path] = content['value']
        return []

    def _append(self, path, entries, reject):
        points, errors = self.series.setdefault(path, []), []
        for entry in entries:
            last = points[-1][0] if points else -1
            step = last + 1 if entry['step'] is None else entry['step']
            if reject or (points and step <= last):
                self.rejected[path] += 1
                # The wording of the real server, which the sink looks for.
                errors.append(
                    'X-coordinates (step) must be strictly increasing for series attribute: '
                    f'{path}. Invalid point: {float(step)}'
                )
            else:
                points.append((step, entry['timestampMilliseconds'], entry['value']))
        return errors


def read_record(path: str | Path) -> dict[str, Run]:
    """Returns the runs in the file of a server, by custom id."""
    runs = {}
    for custom_id, fields in json.loads(Path(path).read_text()).items():
        fields['series'] = {
            key: [tuple(point) for point in points] for key, points in fields['series'].items()
        }
        fields['files'] = {
            key: base64.b64decode(file['base64']) for key, file in fields['files'].items()
        }
        fields['rejected'] = collections.Counter(fields['rejected'])
        runs[custom_id] = Run(**fields)
    return runs


def _write_record(path, runs):
    record = {}
    for custom_id, run in runs.items():
        files = {
            path: {
                'sha256': hashlib.sha256(content).hexdigest(),
                'base64': base64.b64encode(content).decode(),
            }
            for path, content in run.files.items()
        }
        record[custom_id] = vars(run) | {'files': files}
    unfinished = path.with_name(f'.{path.name}.unfinished')
    unfinished.write_text(json.dumps(record))
    unfinished.replace(path)


_Request = collections.namedtuple('_Request', 'query headers body')


class Tracker:
    """The state of a server. `serve` starts one.

    Attributes:
        token: for NEPTUNE_API_TOKEN.
        address: 'http://127.0.0.1:PORT'.
        runs: by custom id. A client that gives a known custom id continues that run.
        requests: the number of requests for each operation, 'swagger.json', 'token', 'websocket'.
    """

    def __init__(self, address: str, record: str | Path | None) -> None:
        self.address = address
        token = {'api_address': address, 'api_url': address, 'api_key': 'a key'}
        self.token = base64.b64encode(json.dumps(token).encode()).decode()
        # It never changes, so that it is valid for a server that replaces one that was killed.
        self.access_token = _jwt(azp='tests', iss=f'{address}/auth', exp=4_000_000_000)
        self.record = Path(record) if record else None
        self.runs = read_record(self.record) if self.record and self.record.is_file() else {}
        self.requests: collections.Counter[str] = collections.Counter()
        self.uploads: dict[str, tuple] = {}  # unfinished ones
        self.faults: dict[str, str | int | None] = {}
        self.changed = threading.Condition()

    def set_faults(self, **faults: str | int | None) -> None:
        """Replaces all faults.

        Args:
            **faults: by the name of an operation, or for `everything`.
                'silence': no answer; the connection is closed when the fault ends.
                'html': a page, with status 200.
                'redirect': a redirect to a page.
                'reject': all points are rejected (only for executeOperations).
                a number: this status.
                None: no fault, although there is one for everything.
        """
        with self.changed:
            self.faults = faults
            self.changed.notify_all()

    def fault(self, name: str) -> str | int | None:
        """Returns the fault of an operation, or None."""
        return self.faults.get(name, self.faults.get('everything'))

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Waits until `predicate()` is true, for `timeout` seconds at most; returns its value.

        It is called after each request.
        """
        with self.changed:
            return self.changed.wait_for(predicate, timeout)

    def arrive(self, name: str) -> str | int | None:
        """Counts a request and returns its fault. A silence lasts until the faults are replaced."""
        with self.changed:
            self.requests[name] += 1
            self.changed.notify_all()
            fault = self.fault(name)
            if fault == 'silence':
                self.changed.wait_for(lambda: self.fault(name) != 'silence')
            return fault

    def answer(self, name: str, request: _Request) -> Any:
        """Executes an operation and returns the answer, which is written as JSON."""
        with self.changed:
            answer = getattr(self, name)(request)
            if self.record and name in ('createExperiment', 'executeOperations', 'fileAtomUpload'):
                _write_record(self.record, self.runs)
            self.changed.notify_all()
            return answer

    def _run(self, request):
        wanted = request.query.get('experimentId') or request.query['experimentIdentifier']
        return next(run for run in self.runs.values() if run.id == wanted)

    def getClientConfig(self, request: _Request) -> dict[str, Any]:
        parts = {'minChunkSize': PART_SIZE, 'maxChunkSize': 2**30, 'maxChunkCount': 1000}
        return {
            'apiUrl': self.address,
            'applicationUrl': self.address,
            'pyLibVersions': {},
            'sysNameSetByBackend': True,
            'multiPartUpload': parts | {'enabled': True, 'maxSinglePartSize': PART_SIZE},
        }

    def exchangeApiToken(self, request: _Request) -> dict[str, Any]:
        return {'accessToken': self.access_token, 'refreshToken': self.access_token}

    def getProject(self, request: _Request) -> dict[str, Any]:
        workspace, name = request.query['projectIdentifier'].split('/')
        project = {'name': name, 'organizationName': workspace, 'projectKey': 'KEY', 'version': 2}
        return project | {'id': f'{workspace}.{name}'}

    def createExperiment(self, request: _Request) -> dict[str, Any]:
        wanted = json.loads(request.body)
        workspace, name = wanted['projectIdentifier'].split('.')
        new = Run(str(uuid.uuid4()))
        run = self.runs.setdefault(wanted['customId'] or new.id, new)
        number = 1 + list(self.runs.values()).index(run)
        place = {'organizationName': workspace, 'projectName': name}
        return place | {'id': run.id, 'shortId': f'KEY-{number}', 'type': 'run', 'trashed': False}

    def getExperimentAttributes(self, request: _Request) -> dict[str, Any]:
        kinds = self._run(request).kinds
        return {'attributes': [{'name': path, 'type': kind} for path, kind in kinds.items()]}

    def getFloatSeriesAttribute(self, request: _Request) -> dict[str, Any]:
        step, _, value = self._run(request).series[request.query['attribute']][-1]
        return {'attributeName': request.query['attribute'], 'lastStep': step, 'last': value}

    def ping(self, request: _Request) -> dict[str, Any]:
        return {}

    def executeOperations(self, request: _Request) -> list[dict[str, str]]:
        run, reject = self._run(request), self.fault('executeOperations') == 'reject'
        errors = [error for each in json.loads(request.body) for error in run.apply(each, reject)]
        return [{'errorDescription': error} for error in errors]

    def fileAtomUpload(self, request: _Request) -> dict[str, Any]:
        run, path = self._run(request), request.query['attribute']
        run.kinds[path] = 'file'
        run.extensions[path] = request.query['ext']
        run.files[path] = request.body
        return {'errors': []}

    def fileAtomMultipartUploadStart(self, request: _Request) -> dict[str, Any]:
        upload = str(uuid.uuid4())
        self.uploads[upload] = request, bytearray(int(request.query['totalLength']))
        return {'uploadId': upload, 'errors': []}

    def fileAtomMultipartUploadPart(self, request: _Request) -> dict[str, Any]:
        start, end = request.headers['X-Range'].removeprefix('bytes=').split('/')[0].split('-')
        _, content = self.uploads[request.query['uploadId']]
        content[int(start) : int(end) + 1] = request.body
        return {'errors': []}

    def fileAtomMultipartUploadFinish(self, request: _Request) -> dict[str, Any]:
        start, content = self.uploads.pop(request.query['uploadId'])
        return self.answer('fileAtomUpload', start._replace(body=bytes(content)))


class _Server(http.server.ThreadingHTTPServer):
    """Listens on the loopback address. Closing it closes all connections and joins all threads."""

    daemon_threads = False
    request_queue_size = 128

    tracker: Tracker

    def __init__(self, port: int) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(('127.0.0.1', port), _Handler)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # the client has gone
            super().handle_error(request, client_address)

    def server_close(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # buffered: a second packet could wait 40 ms for the first one's ACK

    def log_message(self, *args):
        pass

    def do_GET(self):
        tracker = self.server.tracker
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        name = 'websocket' if 'Upgrade' in self.headers else url.path.split('/')[-1]
        fault = tracker.arrive(name)
        if fault == 'silence':
            self.close_connection = True
        elif fault == 'html' or name == 'login':
            self.send(200, '<!DOCTYPE html><title>Sign in</title>', 'text/html')
        elif fault == 'redirect':
            self.send(302, '', location=f'{tracker.address}/login')
        elif isinstance(fault, int):
            self.send(fault, json.dumps({'code': fault, 'title': 'a fault'}))
        elif name == 'websocket':
            self.websocket()
        elif name == 'swagger.json':
            self.send(200, json.dumps(_swagger()))
        elif name == 'token':
            token = {'access_token': tracker.access_token, 'refresh_token': tracker.access_token}
            self.send(200, json.dumps(token | {'token_type': 'Bearer', 'expires_in': 10**6}))
        elif name not in _OPERATIONS:
            self.send(404, '{}')
        elif tracker.token != self.headers['X-Neptune-Api-Token'] and (
            self.headers['Authorization'] != f'Bearer {tracker.access_token}'
        ):
            self.send(401, '{}')
        else:
            try:
                request = _Request(query, self.headers, body)
                self.send(200, json.dumps(tracker.answer(name, request)))
            except LookupError:
                self.send(404, '{}')
            except Exception:  # the client prints the text and gives up
                self.send(400, traceback.format_exc(), 'text/plain')

    do_POST = do_GET

    def send(self, status, text, content_type='application/json', **headers):
        content = text.encode()
        self.send_response(status)
        headers |= {'Content-Type': content_type, 'Content-Length': len(content)}
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(content)

    def websocket(self):
        """Accepts a websocket. The server sends nothing, the client sends one frame: the close."""
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header('Upgrade', 'websocket')
        self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', accept)
        self.end_headers()
        self.wfile.flush()
        if self.rfile.read(2):
            self.wfile.write(b'\x88\x02\x03\xe8')  # a close with status 1000 (normal)
        self.close_connection = True


def _swagger():
    """Returns the description from which the client learns the paths of all operations."""
    # One model describes all answers. The client needs declarations of fields with objects only.
    some = {'type': 'array', 'items': {'$ref': '#/definitions/Answer'}}
    fields = {'multiPartUpload': some['items'], 'attributes': some, 'errors': some}
    paths = {}
    for name, parameters in _OPERATIONS.items():
        schema = some if name == 'executeOperations' else some['items']
        parameters = [parameter.split(':') for parameter in parameters.split()]
        operation = {
            'operationId': name,
            'tags': ['api'],
            'parameters': [
                {'in': place, 'name': key, 'type': 'string', 'schema': {}}
                for place, key in parameters
            ],
            'responses': {'200': {'description': '', 'schema': schema}},
        }
        paths[f'/api/tests/{name}'] = {'post': operation}
    model = {'type': 'object', 'properties': fields}
    info = {'title': 'tests', 'version': '1'}
    return {'swagger': '2.0', 'info': info, 'paths': paths, 'definitions': {'Answer': model}}


def _jwt(**claims):
    """Returns a JSON web token. The client reads the claims and ignores the signature."""
    parts = (json.dumps({'alg': 'HS256'}), json.dumps(claims), 'signature')
    return '.'.join(base64.urlsafe_b64encode(part.encode()).decode().strip('=') for part in parts)


@contextlib.contextmanager
def serve(
    port: int = 0, record: str | Path | None = None, **faults: str | int | None
) -> Iterator[Tracker]:
    """Yields the Tracker of a server on the loopback address.

    Args:
        port: 0 chooses a free one.
        record: a file for the runs, which is replaced atomically before each answer.
        **faults: as for Tracker.set_faults.
    """
    with _Server(port) as server:
        tracker = server.tracker = Tracker(f'http://127.0.0.1:{server.server_port}', record)
        tracker.set_faults(**faults)
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05})
        thread.start()
        try:
            yield tracker
        finally:
            server.shutdown()
            thread.join()
            tracker.set_faults()  # ends the threads of silent requests


class Process(subprocess.Popen[str]):
    """A server in a process of its own. `start` starts one."""

    token: str
    port: int


@contextlib.contextmanager
def start(record: str | Path, port: int = 0) -> Iterator[Process]:
    """Yields a server process, which is killed at the end.

    `read_record(record)` returns what it has acknowledged, even when it is frozen or dead. Another
    server with the same record and port can replace it.
    """
    command = [sys.executable, __file__, f'--record={record}', f'--port={port}']
    with Process(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.token = process.stdout.readline().strip()
            address = json.loads(base64.b64decode(process.token))['api_address']
            process.port = int(address.rpartition(':')[2])
            yield process
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--record', required=True)
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), serve(args.port, args.record) as tracker:
        print(tracker.token, flush=True)
        threading.Event().wait()


if __name__ == '__main__':
    main()
