"""Requests to a server that runs: answers, refusals, limits, and clients that misbehave."""

import base64
import contextlib
import dataclasses
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from neptune_jax.serving.guard import Access
from neptune_jax.serving.limits import Limits
from tests.serving.running import encode, run_server

HEAD = b'POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n'


def status_of(answer):
    return int(answer.split(b' ', 2)[1])


def content_of(answer):
    return json.loads(answer.partition(b'\r\n\r\n')[2])


# ---------------------------------------------------------------------------------------- answers
def test_an_image_gets_the_probabilities_of_the_predictor_to_the_bit(server, predictor, pictures):
    status, answer = server.ask_json('POST', '/predict?top=10', encode(pictures[0]))
    assert status == 200
    assert answer['model'] == 'run'
    expected = np.asarray(predictor.compiled(1)(pictures[:1]))[0]
    order = np.argsort(-expected, kind='stable')
    assert [each['class'] for each in answer['top']] == [predictor.classes[i] for i in order]
    found = np.array([each['probability'] for each in answer['top']], np.float32)
    np.testing.assert_array_equal(found, expected[order])


def test_three_classes_unless_another_number_is_asked_for(server, pictures):
    def classes(query):
        _, answer = server.ask_json('POST', f'/predict{query}', encode(pictures[0]))
        return [each['class'] for each in answer['top']]

    assert len(classes('')) == 3
    assert classes('?top=1') == classes('')[:1]
    assert len(classes('?top=99')) == 10


def test_the_picture_that_the_network_sees(server, predictor):
    image = Image.effect_noise((90, 50), 80).convert('RGB')
    _, answer = server.ask_json('POST', '/predict?preview=1', encode(image, 'JPEG'))
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer['preview']))))
    expected = predictor.read(io.BytesIO(encode(image, 'JPEG')))
    np.testing.assert_array_equal(seen, expected[..., 0])
    _, answer = server.ask_json('POST', '/predict', encode(image))
    assert 'preview' not in answer


def test_large_images_are_decoded_by_other_threads(server):
    image = Image.effect_noise((2200, 2000), 80)
    before = server.counted('decoding_seconds_count')
    status, _ = server.ask_json('POST', '/predict?top=1', encode(image, 'PNG'))
    assert status == 200
    small, _ = server.ask_json('POST', '/predict?top=1', encode(image.resize((300, 300))))
    assert small == 200
    assert server.counted('decoding_seconds_count') == before + 2


def test_a_batch_has_a_line_for_each_line(server, predictor, pictures):
    lines = [
        json.dumps({'image': base64.b64encode(encode(each)).decode()}).encode() for each in pictures
    ]
    lines[2] = b'{"image": "not base64"}'
    lines[5] = b'[' * 10_000
    lines[7] = json.dumps({'image': base64.b64encode(b'no image').decode()}).encode()
    status, headers, body = server.ask('POST', '/predict/batch?top=10', b'\n'.join(lines))
    assert (status, headers['content-type']) == (200, 'application/x-ndjson')
    found = [json.loads(line) for line in body.splitlines()]
    assert len(found) == 12
    assert [number for number, each in enumerate(found) if 'error' in each] == [2, 5, 7]
    assert found[5]['error'].startswith('a line must be {"image": "..."}')
    assert found[7]['error'] == 'this is no PNG, JPEG, WebP, BMP or GIF image'
    expected = predictor(pictures)
    for each, row in zip(found, expected, strict=True):
        if 'top' in each:
            probabilities = {answer['class']: answer['probability'] for answer in each['top']}
            row = dict(zip(predictor.classes, row, strict=True))
            assert probabilities == pytest.approx(row, rel=1e-5)


def test_an_empty_batch_has_an_empty_answer(server):
    assert server.ask('POST', '/predict/batch', b'')[::2] == (200, b'')


def test_what_is_served_is_described(server, predictor):
    status, answer = server.ask_json('GET', '/models')
    assert status == 200
    assert answer['models'] == [
        {
            'name': 'run',
            'classes': list(predictor.classes),
            'image_shape': [28, 28, 1],
            'temperature': 1.0,
            'ready': True,
        }
    ]
    assert answer['limits'] == {'bytes': 2**24, 'pixels': 50_000_000}
    assert server.ask_json('GET', '/live') == (200, {'live': True})
    assert server.ask_json('GET', '/ready') == (200, {'ready': True})
    assert server.ask('HEAD', '/models')[::2] == (200, b'')


def test_metrics_in_the_format_of_prometheus(server, pictures):
    from prometheus_client.parser import text_string_to_metric_families

    server.ask('POST', '/predict', encode(pictures[0]))
    server.ask('GET', '/nothing')
    status, headers, body = server.ask('GET', '/metrics')
    assert status == 200
    assert headers['content-type'].startswith('text/plain; version=')
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples['neptune_jax_requests_total', '200'] >= 1
    assert samples['neptune_jax_requests_total', '404'] >= 1
    assert samples['neptune_jax_waiting_images', 'run'] == 0
    for name in ('queue_seconds', 'batch_images', 'computing_seconds'):
        assert samples[f'neptune_jax_{name}_count', 'run'] >= 1
        assert samples[f'neptune_jax_{name}_sum', 'run'] > 0
    assert samples['neptune_jax_decoding_seconds_count',] >= 1


def test_one_of_several_models(predictor, pictures):
    other = dataclasses.replace(predictor, temperature=2.0, _programs={})
    with run_server({'first': predictor, 'second': other}, batch_size=1) as server:
        for query, name, model in [
            ('', 'first', predictor),
            ('?model=first', 'first', predictor),
            ('?model=second', 'second', other),
        ]:
            _, answer = server.ask_json('POST', f'/predict{query}', encode(pictures[0]))
            assert answer['model'] == name
            assert answer['top'][0]['probability'] == model(pictures[:1]).max()
        status, answer = server.ask_json('POST', '/predict?model=<b>', encode(pictures[0]))
        assert (status, answer) == (404, {'error': 'no such model; there is: first, second'})


# -------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ('method', 'path', 'body', 'status', 'reason'),
    [
        ('GET', '/predict', None, 405, 'method not allowed'),
        ('POST', '/nothing', b'', 404, 'not found'),
        ('GET', '/../../etc/passwd', None, 404, 'not found'),
        ('GET', '/page/../style.css', None, 404, 'not found'),
        ('GET', '/%2e%2e/%2e%2e/etc/passwd%00', None, 404, 'not found'),
        ('POST', '/predict', b'', 415, 'this is no PNG'),
        ('POST', '/predict', b'<script>', 415, 'this is no PNG'),
        ('POST', '/predict?top=-1', b'', 400, 'top must be a number'),
        ('POST', '/predict?top=%EF%BC%93', b'', 400, 'top must be a number'),
        ('POST', '/predict?model=%00', b'', 404, 'no such model'),
        ('POST', '/predict/batch?top=x', b'', 400, 'top must be a number'),
        ('POST', '/predict/batch', b'\n' * 2000, 413, 'more than 1,024 lines'),
        ('POST', '/predict', b'x' * (2**24 + 1), 413, 'a body of more than 16,777,216 bytes'),
    ],
)
def test_a_bad_request_has_a_reason(server, method, path, body, status, reason):
    found, answer = server.ask_json(method, path, body)
    assert found == status
    assert answer.keys() == {'error'}
    assert answer['error'].startswith(reason)


def test_every_answer_forbids_to_guess_its_type(server):
    for path in ('/', '/models', '/nothing'):
        assert server.ask('GET', path)[1]['x-content-type-options'] == 'nosniff'


def test_a_body_that_is_announced_as_too_large_is_not_read(server):
    answer = server.send(HEAD + b'Content-Length: 99999999999\r\n\r\n')
    assert status_of(answer) == 413


def test_a_chunked_body_is_counted(server):
    def chunked():
        for _ in range(17):
            yield b'x' * 2**20

    status, answer = server.ask_json('POST', '/predict', chunked())
    assert (status, answer) == (413, {'error': 'a body of more than 16,777,216 bytes'})


@pytest.mark.parametrize(
    'request_', [b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03', b'GET\r\n\r\n', b'hello\r\n\r\n']
)
def test_what_is_no_http_gets_an_answer_in_json(server, request_):
    answer = server.send(request_)
    assert status_of(answer) == 400
    assert content_of(answer) == {'error': 'this is no HTTP request'}


def test_headers_without_an_end_are_cut_off(server):
    answer = server.send(b'GET / HTTP/1.1\r\n', b'A: b\r\n' * 20_000)
    assert answer == b'' or status_of(answer) == 431  # the connection may be reset before


# ------------------------------------------------------------------------------------ who may ask
@pytest.mark.parametrize(
    ('host', 'status'),
    [
        ('localhost', 200),
        ('LOCALHOST:8000', 200),
        ('127.0.0.1:1', 200),
        ('[::1]:8000', 200),
        ('evil.example', 421),
        ('localhost.evil.example', 421),
        ('', 421),
    ],
)
def test_a_name_of_another_site_is_refused(server, host, status):
    """DNS rebinding: a page of evil.example whose name leads to this server."""
    assert server.ask_json('GET', '/live', headers={'Host': host}.items())[0] == status


@pytest.mark.parametrize(
    ('site', 'status'), [('same-origin', 200), ('none', 200), ('cross-site', 403)]
)
def test_a_page_of_another_site_is_refused(server, site, status):
    assert server.ask('GET', '/live', headers={'Sec-Fetch-Site': site}.items())[0] == status


def test_a_token_is_needed_where_one_is_set(predictor, pictures):
    access = Access(hosts=None, token=b'0123456789abcdef')
    with run_server({'run': predictor}, access=access, batch_size=1) as server:

        def status(path, *headers):
            return server.ask('GET', path, headers=[('Host', 'any.example'), *headers])[0]

        for path in ('/', '/style.css', '/page.js', '/live', '/ready'):
            assert status(path) == 200
        for path in ('/models', '/metrics', '/predict', '/nothing', '//'):
            assert status(path) == 401
        for wrong in (
            *('Bearer 0123456789abcde', 'Bearer 0123456789abcdef0', 'Basic 0123456789abcdef'),
            *('0123456789abcdef', 'Bearer', 'Bearer \xe9', ''),
        ):
            assert status('/models', ('Authorization', wrong)) == 401
        assert status('/models', ('Authorization', 'bearer 0123456789abcdef')) == 200
        answered, headers, body = server.ask('POST', '/predict', encode(pictures[0]))
        assert (answered, headers['www-authenticate']) == (401, 'Bearer')
        assert json.loads(body) == {'error': 'a token is needed: Authorization: Bearer TOKEN'}


# ----------------------------------------------------------------------- clients that misbehave
@pytest.fixture(scope='module')
def impatient(predictor):
    """A server with small limits, and an event: until it is set, no image is decoded."""
    limits = Limits(body_seconds=0.4, answer_seconds=0.5, waiting=3, connections=4)
    go_on = threading.Event()
    go_on.set()

    class Slow:
        def __getattr__(self, name):
            return getattr(predictor, name)

        def read(self, file):
            assert go_on.wait(30)
            return predictor.read(file)

    with run_server({'run': Slow()}, limits=limits, batch_size=2) as server:
        yield server, go_on
        go_on.set()


@contextlib.contextmanager
def waiting(event):
    event.clear()
    try:
        yield
    finally:
        event.set()


@pytest.mark.parametrize(
    'start',
    [
        b'POST /pred',
        b'POST /predict HTTP/1.1\r\nHost: localhost\r\n',
        HEAD + b'Content-Length: 100\r\n\r\n' + b'x' * 99,
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n',
    ],
)
def test_a_request_that_does_not_arrive_is_given_up(impatient, start):
    server, _ = impatient
    began = time.monotonic()
    answer = server.send(start)
    assert 0.3 < time.monotonic() - began < 5
    assert status_of(answer) == 408
    assert content_of(answer) == {'error': 'the request has not arrived in 0.4 s'}


def test_a_body_that_drips_is_given_up(impatient):
    server, _ = impatient
    start = HEAD + b'Content-Length: 100\r\n\r\n'
    assert status_of(server.send(start, *[b'x'] * 20, pause=0.05)) == 408


def test_a_connection_that_says_nothing_is_closed(impatient):
    server, _ = impatient
    assert server.send() == b''


def test_a_late_answer_is_a_504_and_its_image_is_dropped(impatient, pictures):
    server, go_on = impatient
    dropped = server.counted('images_dropped_total')
    with waiting(go_on), contextlib.ExitStack() as stack:
        results = []
        for number in range(3):
            body = encode(pictures[number])

            def ask(body=body):
                results.append(server.ask('POST', '/predict', body))

            thread = threading.Thread(target=ask)
            thread.start()
            stack.callback(thread.join)
            time.sleep(0.05)
        stack.close()
    assert [status for status, _, _ in results] == [504, 504, 504]
    assert {headers['retry-after'] for _, headers, _ in results} == {'1'}
    assert json.loads(results[0][2]) == {'error': 'no answer in 0.5 s; try again'}
    wait_for(lambda: server.counted('images_dropped_total') == dropped + 2)  # one was being read


def test_a_full_queue_is_a_503(impatient, pictures):
    server, go_on = impatient
    lines = [
        json.dumps({'image': base64.b64encode(encode(each)).decode()}).encode()
        for each in pictures[:2]
    ]
    with waiting(go_on):
        sockets = [ask_without_reading(server, pictures[0])]
        wait_for(lambda: server.counted('waiting_images', model='run') == 0)
        sockets += [ask_without_reading(server, each) for each in pictures[1:3]]
        wait_for(lambda: server.counted('waiting_images', model='run') == 2)
        status, headers, body = server.ask('POST', '/predict/batch', b'\n'.join(lines))
        assert (status, headers['retry-after']) == (503, '1')
        assert json.loads(body) == {'error': '2 images wait already; try again'}
    for connection in sockets:
        assert status_of(connection.recv(65536)) == 200
        connection.close()


def test_the_image_of_a_client_that_left_is_dropped(impatient, pictures):
    server, go_on = impatient
    dropped = server.counted('images_dropped_total')
    computed = server.counted('batch_images_sum', model='run')
    with waiting(go_on):
        first = ask_without_reading(server, pictures[0])
        wait_for(lambda: server.counted('waiting_images', model='run') == 0)
        left = ask_without_reading(server, pictures[1])
        wait_for(lambda: server.counted('waiting_images', model='run') == 1)
        left.close()
        time.sleep(0.2)
    assert status_of(first.recv(65536)) == 200
    first.close()
    wait_for(lambda: server.counted('images_dropped_total') == dropped + 1)
    assert server.counted('batch_images_sum', model='run') == computed + 1


def ask_without_reading(server, picture):
    """Sends a request; returns its connection."""
    body = encode(picture)
    connection = socket.create_connection(('127.0.0.1', server.port), 30)
    connection.sendall(HEAD + b'Content-Length: %d\r\n\r\n' % len(body) + body)
    time.sleep(0.05)
    return connection


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_too_many_connections_are_a_503(impatient):
    server, _ = impatient
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            address = ('127.0.0.1', server.port)
            stack.enter_context(socket.create_connection(address, 30))
        answer = server.send(b'GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n')
        assert status_of(answer) == 503
        assert b'\r\nretry-after: 1\r\n' in answer
    wait_for(
        lambda: status_of(server.send(b'GET /live HTTP/1.0\r\nHost: localhost\r\n\r\n')) == 200
    )


def test_bodies_together_have_a_limit(predictor):
    limits = Limits(body_bytes=1000, connections=50)
    with run_server({'run': predictor}, limits=limits, batch_size=1) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(16):
                connection = socket.create_connection(('127.0.0.1', server.port), 30)
                stack.enter_context(connection)
                connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n' + b'x' * 990)
            time.sleep(0.2)
            status, answer = server.ask_json('POST', '/predict', b'x' * 500)
            assert status == 503
            assert answer == {'error': 'too many images are being sent at once; try again'}
        wait_for(lambda: server.ask('POST', '/predict', b'x' * 500)[0] == 415)


def test_requests_one_after_another_in_one_packet_are_all_answered(server, pictures):
    body = encode(pictures[0])
    one = (
        b'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n' % len(body)
        + body
    )
    last = b'GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
    answer = server.send(one * 3 + last)
    assert answer.count(b'HTTP/1.1 200 OK') == 4
    assert answer.endswith(b'{"live":true}')
