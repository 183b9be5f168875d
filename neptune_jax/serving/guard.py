"""Who may ask: the host, the origin and the token of a request, before all else."""

import asyncio
import hmac
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neptune_jax.serving import answers
from neptune_jax.serving.limits import Limits
from neptune_jax.serving.metrics import Metrics

CLIENT_LEFT = 499  # the status of an answer that nobody reads

LOOPBACK = frozenset({'localhost', '127.0.0.1', '::1'})

# The page has to be there before a person can give it the token. It holds nothing secret.
WITHOUT_TOKEN = frozenset({'/', '/style.css', '/page.js', '/live', '/ready'})


class Access(NamedTuple):
    """Who may ask."""

    hosts: frozenset[str] | None = LOOPBACK  # names of this server in requests; None: any
    token: bytes | None = None


class Guard:
    """Refuses requests of others, counts all requests, and adds the headers of every answer."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics) -> None:
        self.app, self.access, self.limits = app, access, limits
        self._requests = metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request (ASGI)."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message['type'] == 'http.response.start':
                has_begun = True
                if message['status'] != CLIENT_LEFT:
                    self._requests.labels(str(message['status'])).inc()
                message['headers'] = [*message['headers'], *answers.HEADERS]
            await send(message)

        app = self._refusal(scope) or self.app
        try:
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            if not has_begun:
                ends = answers.error(503, 'the server ends', {'Retry-After': '5'})
                await ends(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope['headers'])
        # A page of another site may have a name that leads to this server (DNS rebinding).
        if self.access.hosts is not None and _name(headers.get(b'host')) not in self.access.hosts:
            allowed = ', '.join(sorted(self.access.hosts))
            return answers.error(421, f'the host of the request is none of: {allowed}')
        if headers.get(b'sec-fetch-site') in (b'cross-site', b'same-site'):
            return answers.error(403, 'pages of other sites may not ask')
        if self.access.token is not None and scope['path'] not in WITHOUT_TOKEN:
            scheme, _, token = headers.get(b'authorization', b'').partition(b' ')
            right = hmac.compare_digest(token.strip(), self.access.token)
            if scheme.lower() != b'bearer' or not right:
                reason = 'a token is needed: Authorization: Bearer TOKEN'
                return answers.error(401, reason, {'WWW-Authenticate': 'Bearer'})
        length = headers.get(b'content-length', b'')
        if length.isdigit() and int(length) > self.limits.body_bytes:
            return answers.error(413, f'a body of more than {self.limits.body_bytes:,} bytes')
        return None


def _name(host: bytes | None) -> str:
    """Returns the name in a Host header, without its port; '' if there is none."""
    text = (host or b'').decode('latin-1').lower()
    if text.startswith('['):  # IPv6
        return text[1:].partition(']')[0]
    return text.partition(':')[0]
