"""A server for tests: speaks what the client `neptune` 1.14 needs, and records what it gets.

with server.serve() as tracker:
    ...  # start a process with NEPTUNE_API_TOKEN=tracker.token, OAUTHLIB_INSECURE_TRANSPORT=1
    tracker.runs['my run'].series['train/loss']  # [(step, milliseconds, value), ...]

python tests/tracking/server.py --port 0 --record FILE   the same as a process
It prints its token, keeps the runs in FILE, and goes on with those it finds there. `start` starts
one, to be frozen or killed.
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
from pathlib import Path

# Smaller than the real server's 5 MiB, so that a test's large file is a small one.
PART_SIZE = 2**20

# The parameters of each operation by place, which must all be declared.
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
    """What a run was sent, by path.

    kinds:       the server's name of the type ('float', 'stringSet', 'floatSeries', 'file', ...),
                 which a path keeps.
    attributes:  values; a set as a sorted list, a datetime as ISO 8601 in UTC.
    series:      lists of (step, milliseconds, value).
    files:       bytes.
    extensions:  of the files, without the dot.
    rejected:    how many points, or values of the wrong type.
    """

    id: str
    kinds: dict = dataclasses.field(default_factory=dict)
    attributes: dict = dataclasses.field(default_factory=dict)
    series: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    extensions: dict = dataclasses.field(default_factory=dict)
    rejected: dict = dataclasses.field(default_factory=collections.Counter)

    def apply(self, operation, reject):
        """Applies an operation as the client sends it; returns what is wrong with it, a list."""
        path = operation.pop('path')
        ((verb, content),) = operation.items()
        if verb == 'configFloatSeries':  # the ends of an axis
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
                # The real server's words: users filter them out of the client's output.
                errors.append(
                    'X-coordinates (step) must be strictly increasing for series attribute: '
                    f'{path}. Invalid point: {float(step)}'
                )
            else:
                points.append((step, entry['timestampMilliseconds'], entry['value']))
        return errors


def read_record(path):
    """Returns the runs in a server's record, a dict from custom id to Run."""
    runs = {custom_id: Run(**run) for custom_id, run in json.loads(Path(path).read_text()).items()}
    for run in runs.values():
        run.series = {path: [tuple(p) for p in points] for path, points in run.series.items()}
        run.files = {path: base64.b64decode(file['base64']) for path, file in run.files.items()}
        run.rejected = collections.Counter(run.rejected)
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
    """What a server knows. `serve` starts one.

    token:     for NEPTUNE_API_TOKEN.
    address:   'http://127.0.0.1:port'.
    runs:      Run by custom id; a known one gives the same run again.
    requests:  how often each operation was asked for; 'swagger.json', 'token', 'websocket' too.
    """

    def __init__(self, address, record):
        self.address = address
        token = {'api_address': address, 'api_url': address, 'api_key': 'a key'}
        self.token = base64.b64encode(json.dumps(token).encode()).decode()
        # Tells nothing of the time, so that it outlives a server that is killed.
        self.access_token = _jwt(azp='tests', iss=f'{address}/auth', exp=4_000_000_000)
        self.record = Path(record) if record else None
        self.runs = read_record(record) if record and self.record.is_file() else {}
        self.requests = collections.Counter()
        self.uploads = {}
        self.faults = {}
        self.changed = threading.Condition()

    def set_faults(self, **faults):
        """Replaces the faults: one by operation's name, or one for `everything`.

        'silence'  accepts and does not answer; when the fault ends, so does the connection
        'html'     a page, with status 200
        'redirect' to such a page
        'reject'   rejects all points (executeOperations)
        an int     that status
        None       no fault, where there is one for everything
        """
        with self.changed:
            self.faults = faults
            self.changed.notify_all()

    def fault(self, name):
        return self.faults.get(name, self.faults.get('everything'))

    def wait_for(self, predicate, timeout):
        """Waits until `predicate()` holds, asked after each request; returns whether it does."""
        with self.changed:
            return self.changed.wait_for(predicate, timeout)

    def arrive(self, name):
        """Counts a request; returns its fault, a silence when it has ended."""
        with self.changed:
            self.requests[name] += 1
            self.changed.notify_all()
            fault = self.fault(name)
            if fault == 'silence':
                self.changed.wait_for(lambda: self.fault(name) != 'silence')
            return fault

    def answer(self, name, request):
        """Does what an operation asks; returns the answer, in JSON's types."""
        with self.changed:
            answer = getattr(self, name)(request)
            if self.record and name in ('createExperiment', 'executeOperations', 'fileAtomUpload'):
                _write_record(self.record, self.runs)
            self.changed.notify_all()
            return answer

    def _run(self, request):
        wanted = request.query.get('experimentId') or request.query['experimentIdentifier']
        return next(run for run in self.runs.values() if run.id == wanted)

    def getClientConfig(self, request):
        parts = {'minChunkSize': PART_SIZE, 'maxChunkSize': 2**30, 'maxChunkCount': 1000}
        return {
            'apiUrl': self.address,
            'applicationUrl': self.address,
            'pyLibVersions': {},
            'sysNameSetByBackend': True,
            'multiPartUpload': parts | {'enabled': True, 'maxSinglePartSize': PART_SIZE},
        }

    def exchangeApiToken(self, request):
        return {'accessToken': self.access_token, 'refreshToken': self.access_token}

    def getProject(self, request):
        workspace, name = request.query['projectIdentifier'].split('/')
        project = {'name': name, 'organizationName': workspace, 'projectKey': 'KEY', 'version': 2}
        return project | {'id': f'{workspace}.{name}'}

    def createExperiment(self, request):
        wanted = json.loads(request.body)
        workspace, name = wanted['projectIdentifier'].split('.')
        new = Run(str(uuid.uuid4()))
        run = self.runs.setdefault(wanted['customId'] or new.id, new)
        number = 1 + list(self.runs.values()).index(run)
        place = {'organizationName': workspace, 'projectName': name}
        return place | {'id': run.id, 'shortId': f'KEY-{number}', 'type': 'run', 'trashed': False}

    def getExperimentAttributes(self, request):
        kinds = self._run(request).kinds
        return {'attributes': [{'name': path, 'type': kind} for path, kind in kinds.items()]}

    def getFloatSeriesAttribute(self, request):
        step, _, value = self._run(request).series[request.query['attribute']][-1]
        return {'attributeName': request.query['attribute'], 'lastStep': step, 'last': value}

    def ping(self, request):
        return {}

    def executeOperations(self, request):
        run, reject = self._run(request), self.fault('executeOperations') == 'reject'
        errors = [error for each in json.loads(request.body) for error in run.apply(each, reject)]
        return [{'errorDescription': error} for error in errors]

    def fileAtomUpload(self, request):
        run, path = self._run(request), request.query['attribute']
        run.kinds[path] = 'file'
        run.extensions[path] = request.query['ext']
        run.files[path] = request.body
        return {'errors': []}

    def fileAtomMultipartUploadStart(self, request):
        upload = str(uuid.uuid4())
        self.uploads[upload] = request, bytearray(int(request.query['totalLength']))
        return {'uploadId': upload, 'errors': []}

    def fileAtomMultipartUploadPart(self, request):
        start, end = request.headers['X-Range'].removeprefix('bytes=').split('/')[0].split('-')
        _, content = self.uploads[request.query['uploadId']]
        content[int(start) : int(end) + 1] = request.body
        return {'errors': []}

    def fileAtomMultipartUploadFinish(self, request):
        start, content = self.uploads.pop(request.query['uploadId'])
        return self.answer('fileAtomUpload', start._replace(body=bytes(content)))


class _Server(http.server.ThreadingHTTPServer):
    """Listens on loopback. Closing it ends its connections and waits for their threads."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, port):
        self.connections = set()
        super().__init__(('127.0.0.1', port), _Handler)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away is no error
            super().handle_error(request, client_address)

    def server_close(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # an answer in one packet: of two, the second can wait 40 ms for an ACK

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
            except Exception:  # the client prints the text and does not ask again
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
        """Accepts a websocket and sends nothing; the only frame of the client is its close."""
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header('Upgrade', 'websocket')
        self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', accept)
        self.end_headers()
        self.wfile.flush()
        if self.rfile.read(2):
            self.wfile.write(b'\x88\x02\x03\xe8')  # closed, normally (1000)
        self.close_connection = True


def _swagger():
    """Describes all operations. The client learns their methods and paths from it."""
    # One model for all answers: the client needs fields that hold objects to be declared.
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
    """A JSON web token. The client reads the claims and leaves the signature alone."""
    parts = (json.dumps({'alg': 'HS256'}), json.dumps(claims), 'signature')
    return '.'.join(base64.urlsafe_b64encode(part.encode()).decode().strip('=') for part in parts)


@contextlib.contextmanager
def serve(port=0, record=None, **faults):
    """Yields a Tracker that answers on loopback.

    Args:
        port: 0 takes a free one.
        record: a file that holds the runs, replaced atomically before a request is answered.
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
            tracker.set_faults()  # those that wait can end


@contextlib.contextmanager
def start(record, port=0):
    """Yields a Popen of this file with the attributes `token` and `port`. In the end it is killed.

    `read_record(record)` has what it acknowledged, also when it is frozen or dead; another one
    with the same record and port takes its place.
    """
    command = [sys.executable, __file__, f'--record={record}', f'--port={port}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            process.token = process.stdout.readline().strip()
            address = json.loads(base64.b64decode(process.token))['api_address']
            process.port = urllib.parse.urlsplit(address).port
            yield process
        finally:
            process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--record', required=True)
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), serve(args.port, args.record) as tracker:
        print(tracker.token, flush=True)
        threading.Event().wait()


if __name__ == '__main__':
    main()
