"""Answers in JSON, and the headers that every answer has."""

import http
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

# Headers of every answer.
HEADERS = [(b'x-content-type-options', b'nosniff'), (b'cache-control', b'no-store')]

# In ASCII, so that no text of a client or of a class breaks it.
_ENCODER = json.JSONEncoder(separators=(',', ':'), allow_nan=False)


def encode(content: Any) -> bytes:
    """Returns JSON."""
    return _ENCODER.encode(content).encode()


def in_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a response with JSON."""
    return Response(encode(content), status, headers, 'application/json')


def error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a response that says why there is no other."""
    return in_json({'error': reason}, status, headers)


def raw_error(status: int, reason: str) -> bytes:
    """Returns the same as bytes, for a connection that is closed after it."""
    body = encode({'error': reason})
    lines = [f'HTTP/1.1 {status} {http.HTTPStatus(status).phrase}'.encode()]
    lines += [b'%s: %s' % header for header in HEADERS]
    lines += [b'content-type: application/json', b'content-length: %d' % len(body)]
    lines += [b'retry-after: 1'] if status == 503 else []
    return b'\r\n'.join([*lines, b'connection: close', b'', body])
