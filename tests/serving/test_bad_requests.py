"""Some hundreds of bad requests; `python -m tests.stress.requests` sends thousands."""

import random

from neptune_jax.serving.limits import Limits
from tests.serving.running import run_server
from tests.stress import request_cases, requests


def test_bad_requests_get_a_reason_and_do_no_harm(predictor):
    good = request_cases.whole(random.Random(0))
    limits = Limits(body_seconds=requests.BODY_SECONDS, pixels=2_000_000)
    with run_server({'run': predictor}, limits=limits) as server:
        first = requests.send(server.port, good)
        statuses, faults = requests.send_all(server.port, range(300), seed=1)
        assert faults == []
        assert {200, 400, 404, 408, 413, 415, 422} <= statuses.keys()
        assert requests.send(server.port, good) == first
