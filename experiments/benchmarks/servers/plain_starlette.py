"""A handler as one writes it in Starlette: it decodes and computes one image in a thread.

python -m experiments.benchmarks.servers.plain_starlette RUN_DIR PORT
"""

import io
import sys

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

from neptune_jax.devices import startup


def main():
    workdir, port = sys.argv[1:]
    startup.prepare()
    from neptune_jax.inference.predictor import Predictor

    predictor = Predictor.from_run(workdir)
    program = predictor.compiled(1)

    def answer(body):
        probabilities = np.asarray(program(predictor.read(io.BytesIO(body))[None]))[0]
        best = np.argsort(-probabilities)[:3]
        return [
            {'class': predictor.classes[number], 'probability': float(probabilities[number])}
            for number in best
        ]

    async def predict(request):
        return JSONResponse({'top': await run_in_threadpool(answer, await request.body())})

    app = Starlette(routes=[Route('/predict', predict, methods=['POST'])])
    uvicorn.run(app, port=int(port), access_log=False, log_level='error')


if __name__ == '__main__':
    main()
