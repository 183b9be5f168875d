"""One connection: how long a request may take to arrive, how long its head and its queue may be.

Uvicorn waits for ever for the rest of a request, and for a client that does not read its answer.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from neptune_jax.serving import answers
from neptune_jax.serving.limits import Limits
from neptune_jax.serving.metrics import Metrics

HEAD_BYTES = 32_768  # of a request: its first line and its headers


class Connection(HttpToolsProtocol):
    """A connection with limits. `limited` sets them."""

    limits: Limits
    metrics: Metrics

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._deadline: asyncio.TimerHandle | None = None
        self._unused_bytes = 0
        if len(self.connections) > self.limits.connections:
            self._refuse(503, 'too many connections; try again')
        else:
            self._set_deadline()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is not before:
            self._unused_bytes = 0
        elif before is None or before.response_complete:  # they belong to no request yet
            self._unused_bytes += len(data)
            # After an early answer the rest of the body arrives. A client reads the answer then.
            is_body = before is not None and before.more_body
            if self._unused_bytes > (4 * self.limits.body_bytes if is_body else HEAD_BYTES):
                self._refuse(431, 'the headers are too long')
        self._check_deadline()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP. Uvicorn calls it."""
        self._refuse(400, 'this is no HTTP request')

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._check_deadline()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait until the client reads
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _check_deadline(self):
        """Sets a deadline while the client has to send something, and only then."""
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            self._clear_deadline()
        elif self._deadline is None:
            self._set_deadline()

    def _set_deadline(self):
        self._clear_deadline()
        self._deadline = self.loop.call_later(self.limits.body_seconds, self._wait_once_more)

    def _wait_once_more(self):
        # If the loop was busy, what has arrived in time is read before this.
        self._deadline = self.loop.call_later(0.001, self._give_up)

    def _give_up(self):
        if self.flow.write_paused or self._is_answering():
            self.transport.abort()
        elif self.cycle is None and not self._unused_bytes:  # the client has said nothing
            self.transport.close()
        else:
            self._refuse(408, f'the request has not arrived in {self.limits.body_seconds:g} s')

    def _is_answering(self):
        """Whether an answer has begun and the connection is not free for another one."""
        cycle = self.cycle
        return (
            cycle is not None
            and cycle.response_started
            and (cycle.more_body or not cycle.response_complete)
        )

    def _clear_deadline(self):
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status, reason):
        self.metrics.requests.labels(str(status)).inc()
        if not self._is_answering():
            self.transport.write(answers.raw_error(status, reason))
        self.transport.close()


def limited(limits: Limits, metrics: Metrics) -> type[asyncio.Protocol]:
    """Returns the class of connections with these limits, for `uvicorn.Config(http=...)`."""
    options: dict[str, Any] = {'limits': limits, 'metrics': metrics}
    return type('LimitedConnection', (Connection,), options)
