"""The same model in LitServe, with its batching; it takes images as base64 in JSON.

python -m experiments.benchmarks.servers.litserve_server RUN_DIR PORT
"""

import base64
import io
import sys

import litserve
import numpy as np

BATCH_SIZE = 64


class Api(litserve.LitAPI):
    """A model in LitServe's words."""

    workdir = ''

    def setup(self, device):
        from neptune_jax.devices import startup

        startup.prepare()
        from neptune_jax.inference.predictor import Predictor
        from neptune_jax.serving.batching import padded_sizes

        self.predictor = Predictor.from_run(self.workdir)
        self.programs = {size: self.predictor.compiled(size) for size in padded_sizes(BATCH_SIZE)}

    def decode_request(self, request):
        return self.predictor.read(io.BytesIO(base64.b64decode(request['image'])))

    def batch(self, inputs):
        return inputs

    def predict(self, images):
        size = next(size for size in self.programs if size >= len(images))
        padded = np.zeros((size, *self.predictor.image_shape), np.uint8)
        padded[: len(images)] = images
        return np.asarray(self.programs[size](padded))[: len(images)]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, probabilities):
        best = np.argsort(-probabilities)[:3]
        return {
            'top': [
                {'class': self.predictor.classes[each], 'probability': float(probabilities[each])}
                for each in best
            ]
        }


def main():
    workdir, port = sys.argv[1:]
    # No other wait for a batch (1, 2, 5 ms) was faster, and neither was its queue in ZeroMQ.
    api = Api(max_batch_size=BATCH_SIZE, batch_timeout=0.0)
    api.workdir = workdir  # travels to the process that computes
    server = litserve.LitServer(api, accelerator='cpu')
    server.run(port=int(port), log_level='error', generate_client_file=False, access_log=False)


if __name__ == '__main__':
    main()
