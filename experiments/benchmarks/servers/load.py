"""A client that keeps some connections busy: each sends its next request when it has its answer.

    python -m experiments.benchmarks.servers.load PORT FOLDER --connections=64 --seconds=5

It posts the files of a folder to /predict of this machine in turn, on connections that stay open,
and prints one line of JSON: how many answers came, and the milliseconds that each took. It speaks
no more HTTP than it needs, so that it takes less of the processor than any server.
"""

import argparse
import asyncio
import base64
import itertools
import json
import time
from pathlib import Path


class Connection(asyncio.Protocol):
    """One connection, busy until `until`."""

    def __init__(self, requests, milliseconds, until):
        self.requests, self.milliseconds, self.until = requests, milliseconds, until
        self.answer, self.length = bytearray(), 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self._send()

    def _send(self):
        self.sent = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data):
        self.answer += data
        if not self.length:
            head, blank, _ = self.answer.partition(b'\r\n\r\n')
            if not blank:
                return
            if not head.startswith(b'HTTP/1.1 200 '):
                self._end(RuntimeError(self.answer.decode(errors='replace')))
                return
            fields = head.lower().split(b'\r\n')
            (size,) = (line[15:] for line in fields if line.startswith(b'content-length:'))
            self.length = len(head) + 4 + int(size)
        if len(self.answer) == self.length:
            now = time.perf_counter()
            self.milliseconds.append(1000 * (now - self.sent))
            self.answer.clear()
            self.length = 0
            if now < self.until:
                self._send()
            else:
                self._end(None)

    def connection_lost(self, error):
        self._end(error or RuntimeError('the server has closed the connection'))

    def _end(self, error):
        if not self.ended.done():
            if error:
                self.ended.set_exception(error)
            else:
                self.ended.set_result(None)
        self.transport.close()


def requests_of(folder, in_json):
    """Returns a request for each file of a folder, as bytes."""
    kind, bodies = 'image/png', [path.read_bytes() for path in sorted(folder.iterdir())]
    if in_json:
        kind = 'application/json'
        bodies = [b'{"image": "%s"}' % base64.b64encode(body) for body in bodies]
    head = f'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n'.encode()
    return [head + b'Content-Length: %d\r\n\r\n' % len(body) + body for body in bodies]


async def load(port, requests, connections, seconds):
    """Returns the milliseconds of all answers, and the seconds that they took together."""
    loop = asyncio.get_running_loop()
    milliseconds, endless = [], itertools.cycle(requests)
    began = time.perf_counter()
    busy = []
    for _ in range(connections):
        _, connection = await loop.create_connection(
            lambda: Connection(endless, milliseconds, began + seconds), '127.0.0.1', port
        )
        busy.append(connection.ended)
    await asyncio.gather(*busy)
    return milliseconds, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('port', type=int)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--connections', type=int, default=64)
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--json', action='store_true', help='send {"image": BASE64}')
    args = parser.parse_args()
    import uvloop  # Orbax needs it, so it is installed

    requests = requests_of(args.folder, args.json)
    found, seconds = uvloop.run(load(args.port, requests, args.connections, args.seconds))
    milliseconds = [round(each, 3) for each in found]
    print(json.dumps({'seconds': seconds, 'milliseconds': milliseconds}))


if __name__ == '__main__':
    main()
