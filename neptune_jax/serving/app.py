"""The routes of the server: what is asked for, in JSON."""

import base64
import contextlib
import heapq
import http
import json
import math
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from urllib.parse import parse_qsl

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from neptune_jax.serving import answers, images
from neptune_jax.serving.guard import CLIENT_LEFT, Access, Guard
from neptune_jax.serving.limits import Limits
from neptune_jax.serving.metrics import Metrics
from neptune_jax.serving.service import Model, Service

TOP = 3  # classes in an answer, unless the request says another number

# The page may load its own files and show pictures that it has; nothing else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {'/': ('index.html', 'text/html')}
_PAGE |= {'/style.css': ('style.css', 'text/css'), '/page.js': ('page.js', 'text/javascript')}


def create(
    models: Mapping[str, Model],
    *,
    access: Access,
    limits: Limits,
    metrics: Metrics,
    compiled: Callable[[BaseException | None], None],
) -> ASGIApp:
    """Returns the application. It starts the threads of the models, and ends them.

    Args:
        models: by their names; the first one answers requests that name none.
        access: who may ask.
        limits: what they may take.
        metrics: where requests are counted.
        compiled: called when a model is compiled, or with an exception if that has failed.
    """
    service = Service(models, limits, metrics)
    respond = _Routes(service)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        for model in models.values():
            model.batcher.start(compiled)
        yield
        service.close()

    routes = [
        Route('/predict', respond.predict, methods=['POST']),
        Route('/predict/batch', respond.predict_batch, methods=['POST']),
        Route('/models', respond.describe),
        Route('/metrics', respond.count),
        Route('/live', respond.live),
        Route('/ready', respond.ready),
        *(Route(path, _file(*file)) for path, file in _PAGE.items()),
    ]
    handlers = {HTTPException: _refuse, ClientDisconnect: _forget, Exception: _fail}
    app = Starlette(
        routes=routes,
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, access, limits, metrics)


def _file(name, media_type):
    """Returns a function that answers with a file of the page."""
    headers = {'Content-Security-Policy': _POLICY, 'Referrer-Policy': 'no-referrer'}
    content = resources.files('neptune_jax.serving').joinpath('page', name).read_bytes()

    async def answer(_):
        return Response(content, media_type=media_type, headers=headers)

    return answer


async def _refuse(_, error):
    is_own = error.detail != http.HTTPStatus(error.status_code).phrase
    reason = error.detail if is_own else error.detail.lower()
    return answers.error(error.status_code, reason, error.headers)


async def _forget(*_):
    return Response(status_code=CLIENT_LEFT)


async def _fail(_, error):
    traceback.print_exception(error)
    return answers.error(500, 'a mistake in the server; its log says more')


class _Routes:
    """The functions of the routes."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def predict(self, request: Request) -> Response:
        """Answers with the most probable classes of the image that is the body."""
        query = _query(request)
        name, model = self._model(query)
        top, preview = _number(query, 'top', TOP), _number(query, 'preview', 0)
        async with self.service.body(request) as content:
            (result,) = await self.service.results(request, model, [content])
        if isinstance(result, Exception):
            raise result
        answer = {'model': name, 'top': _most_probable(model, result, top)}
        if preview:
            answer['preview'] = images.as_png(result.image)
        return answers.in_json(answer)

    async def predict_batch(self, request: Request) -> Response:
        """Answers with a line of JSON for each line {"image": BASE64} of the body."""
        query = _query(request)
        _, model = self._model(query)
        top, most = _number(query, 'top', TOP), self.service.limits.lines
        async with self.service.body(request) as content:
            if content.count(b'\n') > most:
                raise HTTPException(413, f'more than {most:,} lines')
            contents = [_file_of(line) for line in content.splitlines()]
            results = await self.service.results(request, model, contents)
        lines = [_line(model, result, top) for result in results]
        return Response(b''.join(lines), media_type='application/x-ndjson')

    async def describe(self, _: Request) -> Response:
        """Answers with the models, and with the limits that a client can keep."""
        models = [
            {
                'name': name,
                'classes': model.predictor.classes,
                'image_shape': model.predictor.image_shape,
                'temperature': model.predictor.temperature,
                'ready': model.batcher.is_ready,
            }
            for name, model in self.service.models.items()
        ]
        limits = {'bytes': self.service.limits.body_bytes, 'pixels': self.service.limits.pixels}
        return answers.in_json({'models': models, 'formats': images.FORMATS, 'limits': limits})

    async def count(self, _: Request) -> Response:
        """Answers with the metrics."""
        return Response(self.service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def live(self, _: Request) -> Response:
        """Answers that the process runs."""
        return answers.in_json({'live': True})

    async def ready(self, _: Request) -> Response:
        """Answers whether all batch sizes of all models are compiled."""
        ready = all(model.batcher.is_ready for model in self.service.models.values())
        return answers.in_json({'ready': ready}, 200 if ready else 503)

    def _model(self, query):
        name = query.get('model') or next(iter(self.service.models))
        if name not in self.service.models:
            raise HTTPException(404, f'no such model; there is: {", ".join(self.service.models)}')
        return name, self.service.models[name]


def _file_of(line):
    """Returns the file in a line of a batch, or an HTTPException."""
    try:
        return base64.b64decode(json.loads(line)['image'], validate=True)
    except (ValueError, RecursionError, LookupError, TypeError):
        reason = 'a line must be {"image": "..."}, with an image file in base64'
        return HTTPException(400, reason)


def _query(request):
    """Returns the parameters of the address."""
    return dict(parse_qsl(request.scope['query_string'].decode('latin-1')))


def _number(query, name, default):
    """Returns a parameter of the address that must be a small number."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise HTTPException(400, f'{name} must be a number from 0 on')
    return int(text)


def _line(model, result, top):
    if isinstance(result, HTTPException):
        return answers.encode({'error': result.detail}) + b'\n'
    if isinstance(result, Exception):
        raise result
    return answers.encode({'top': _most_probable(model, result, top)}) + b'\n'


def _most_probable(model, result, top):
    values = result.probabilities.tolist()
    return [
        {
            'class': model.predictor.classes[number],
            'probability': values[number] if math.isfinite(values[number]) else None,
        }
        for number in heapq.nlargest(top, range(len(values)), key=values.__getitem__)
    ]
