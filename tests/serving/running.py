"""Servers in a thread of the tests' process, and requests to them."""

import asyncio
import contextlib
import http.client
import io
import json
import socket
import threading
import time

from PIL import Image

from neptune_jax.serving import server as servers
from neptune_jax.serving.batching import Batcher
from neptune_jax.serving.guard import Access
from neptune_jax.serving.limits import Limits
from neptune_jax.serving.metrics import Metrics
from neptune_jax.serving.service import Model


def encode(picture, file_format='PNG', **options):
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture.squeeze())
    image.save(file, file_format, **options)
    return file.getvalue()


class Running:
    """A server that runs, and requests to it."""

    def __init__(self, port, metrics, batchers):
        self.port, self.metrics, self.batchers = port, metrics, batchers

    def ask(self, method, path, body=None, headers=(), timeout=30):
        """Returns the status, the headers and the body of an answer."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def ask_json(self, *args, **kwargs):
        """Returns the status and the content of an answer in JSON."""
        status, headers, body = self.ask(*args, **kwargs)
        assert headers['content-type'] == 'application/json'
        return status, json.loads(body)

    def send(self, *parts, pause=0.0, timeout=30):
        """Sends bytes as they are; returns all that comes back until the connection is closed."""
        with socket.create_connection(('127.0.0.1', self.port), timeout) as connection:
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            answer = b''
            with contextlib.suppress(ConnectionError):
                while received := connection.recv(65536):
                    answer += received
            return answer

    def counted(self, name, **labels):
        """Returns the value of a metric."""
        return self.metrics._registry.get_sample_value(f'neptune_jax_{name}', labels) or 0.0


@contextlib.contextmanager
def run_server(predictors, *, access=None, limits=None, batch_size=8):
    """Yields a server that has compiled all its models."""
    access, limits, metrics = access or Access(), limits or Limits(), Metrics()
    ready = threading.Event()
    batchers = {
        name: Batcher(each, name=name, limit=batch_size, capacity=limits.waiting, metrics=metrics)
        for name, each in predictors.items()
    }

    def compiled(error):
        if error or all(batcher.is_ready for batcher in batchers.values()):
            ready.set()

    models = {name: Model(each, batchers[name]) for name, each in predictors.items()}
    server = servers.new_server(models, access, limits, metrics, compiled)
    listener = servers.listen('127.0.0.1', 0)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listener]),))
    thread.start()
    try:
        assert ready.wait(120)
        yield Running(listener.getsockname()[1], metrics, batchers)
    finally:
        server.should_exit = True
        thread.join()
