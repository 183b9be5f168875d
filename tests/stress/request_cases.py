"""The bad requests that `tests.stress.requests` sends."""

import base64
import io
import json
import random
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'GIF')


class Case(NamedTuple):
    """A request, in parts that are sent one after another."""

    kind: str
    parts: list[bytes]
    pause: float = 0.0  # seconds after each part
    reads: bool = True  # whether the client waits for the answer


def http(body, path='/predict', method='POST', length=None, headers=''):
    """Returns a request as bytes. `length` is what its header says of the body."""
    head = f'{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}'
    if length is not False:
        head += f'Content-Length: {len(body) if length is None else length}\r\n'
    return head.encode('latin-1') + b'\r\n' + body


def draw_image(rng):
    """Returns an image file of a random kind, size and content."""
    mode = rng.choice(['L', 'RGB', 'RGBA', 'P', '1'])
    file_format = rng.choice(FORMATS)
    size = rng.randint(1, 90), rng.randint(1, 90)
    noise = np.frombuffer(rng.randbytes(size[0] * size[1] * 4), np.uint8)
    image = Image.fromarray(noise.reshape(*size, 4)).convert(mode)
    if file_format == 'JPEG' and mode in ('RGBA', 'P'):
        image = image.convert('RGB')
    file = io.BytesIO()
    options = {'progressive': rng.random() < 0.5} if file_format == 'JPEG' else {}
    image.save(file, file_format, **options)
    return file.getvalue()


def whole(rng):
    return Case('whole', [http(draw_image(rng))])


def truncated(rng):
    content = draw_image(rng)
    return Case('truncated', [http(content[: rng.randrange(len(content))])])


def damaged(rng):
    content = bytearray(draw_image(rng))
    for _ in range(rng.choice([1, 3, 30])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return Case('damaged', [http(bytes(content))])


def no_image(rng):
    content = rng.choice(
        [
            rng.randbytes(rng.randrange(2000)),
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
            b'%PDF-1.7\n' + rng.randbytes(100),
            b'\x89PNG\r\n\x1a\n' + rng.randbytes(rng.randrange(200)),
            b'RIFF' + rng.randbytes(4) + b'WEBPVP8' + rng.choice([b' ', b'L', b'X']) + b'\xff' * 99,
            b'\xff\xd8\xff' + rng.randbytes(rng.randrange(200)),
            b'BM' + b'\xff' * rng.randrange(100),
            b'GIF89a' + b'\xff' * rng.randrange(100),
            b'\0' * rng.randrange(100_000),
            b'',
        ]
    )
    kind = rng.choice(['', 'Content-Type: text/html\r\n', 'Content-Type: multipart/form-data\r\n'])
    return Case('no image', [http(content, headers=kind)])


def bomb(rng):
    """A small file that promises or holds many pixels, frames or scans."""
    side = rng.choice([7000, 20_000, 65_500])
    zeros = zlib.compress(bytes(10_000_000), 9)
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)

    def png(*chunks):
        return b'\x89PNG\r\n\x1a\n' + b''.join(
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
            for kind, data in chunks
        )

    small = struct.pack('>IIBBBBB', 28, 28, 8, 0, 0, 0, 0)
    size = (side - 1).to_bytes(3, 'little')
    scans = io.BytesIO()
    Image.new('L', (1500, 1500)).save(scans, 'JPEG', progressive=True)
    scan = scans.getvalue()[scans.getvalue().index(b'\xff\xda') : -2]
    animation = io.BytesIO()
    frames = [Image.new('P', (20, 20), number % 256) for number in range(300)]
    frames[0].save(animation, 'GIF', save_all=True, append_images=frames[1:])
    content = rng.choice(
        [
            png((b'IHDR', header), (b'IDAT', zeros), (b'IEND', b'')),
            png((b'IHDR', small), (b'IDAT', zeros), (b'IEND', b'')),
            png((b'IHDR', small), (b'zTXt', b'a\0\0' + zeros), (b'IDAT', zeros), (b'IEND', b'')),
            png((b'IHDR', small), (b'iCCP', b'a\0\0' + zeros), (b'IDAT', zeros), (b'IEND', b'')),
            png((b'IHDR', small), (b'IHDR', header), (b'IDAT', zeros), (b'IEND', b'')),
            b'RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0' + size + size + b'ALPH\0\0\0\0',
            b'GIF89a\1\0\1\0\0\0\0,\0\0\0\0' + b'\xff\xff' * 2 + b'\0\2\2\x44\1\0;',
            scans.getvalue()[:-2] + 2000 * scan + b'\xff\xd9',
            animation.getvalue(),
        ]
    )
    return Case('bomb', [http(content)])


def largest():
    """An image of nearly as many pixels as the server takes, so that it has had that memory."""
    file = io.BytesIO()
    Image.new('RGBA', (7000, 7000)).save(file, 'PNG')
    return Case('largest', [http(file.getvalue())])


def wrong_length(rng):
    content = draw_image(rng)
    length = rng.choice(
        [len(content) // 2, len(content) + 50, 2**40, -1, '0x10', '1 1', '', '9' * 30, '+5', 'ten']
    )
    return Case('wrong length', [http(content, length=length)])


def chunked(rng):
    content = draw_image(rng)
    parts = rng.choice(
        [
            b'%x\r\n%s\r\n0\r\n\r\n' % (len(content), content),
            b'%x\r\n%s\r\n' % (len(content), content),
            b'ffffffffffffffffff\r\n' + content,
            b'-1\r\n' + content,
            b'5;a=b\r\nhello\r\n0\r\n\r\n',
            content,
        ]
    )
    return Case(
        'chunked', [http(b'', length=False, headers='Transfer-Encoding: chunked\r\n') + parts]
    )


def slow(rng):
    request = http(draw_image(rng))
    cut = rng.randrange(1, len(request))
    step = rng.choice([1, 5, len(request) // 20 + 1])
    parts = [request[:cut], *(request[at : at + step] for at in range(cut, len(request), step))]
    return Case('slow', parts[: rng.randint(1, 12)], pause=0.1)


def left(rng):
    request = http(draw_image(rng))
    return Case(
        'left', [request[: rng.choice([len(request), rng.randrange(len(request))])]], reads=False
    )


def path(rng):
    places = r"""
        /../../../etc/passwd /%2e%2e/%2e%2e/etc/passwd /page/../../server.py // /\ /% /é *
        /style.css/../page.js /predict/ /predict/batch/ /models%00 http://evil.example/
        /predict?top=-1 /predict?top=1e9 /predict?model=../../run /predict?preview=%3Cscript%3E
        /predict?model=%ff /predict?model=a&model=b&&&===
    """.split()
    places += ['/predict?top=' + '9' * 5000, '/' + 'a' * 20_000, '/live?' + '&' * 9000]
    method = rng.choice('GET POST PUT HEAD OPTIONS TRACE BREW get CONNECT'.split())
    return Case('path', [http(b'x' * rng.choice([0, 10]), rng.choice(places), method)])


def headers(rng):
    lines = rng.choice(
        [
            'X: ' + 'a' * 100_000 + '\r\n',
            'X: a\r\n' * 5000,
            'Host: evil.example\r\n',
            'Upgrade: websocket\r\nConnection: Upgrade\r\n',
            'Expect: 100-continue\r\n',
            'Expect: the unexpected\r\n',
            'Authorization: Bearer \xff\r\n',
            'Content-Encoding: gzip\r\n',
            'X\0: a\r\n',
            ': a\r\n',
            ' folded\r\n',
            'Sec-Fetch-Site: cross-site\r\n',
        ]
    )
    return Case('headers', [http(draw_image(rng), headers=lines)])


def no_http(rng):
    return Case(
        'no http',
        [
            rng.choice(
                [
                    rng.randbytes(rng.randrange(1, 3000)),
                    b'\r\n' * rng.randrange(1, 3000),
                    b'GET / HTTP/9.9\r\n\r\n',
                    b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' * 30,
                    b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
                    b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + rng.randbytes(300),
                    b'POST /predict HTTP/1.0\r\nHost: localhost\r\n\r\n',
                ]
            )
        ],
    )


def batch(rng):
    lines = []
    for _ in range(rng.randrange(12)):
        image = base64.b64encode(draw_image(rng)).decode()
        lines.append(
            rng.choice(
                [
                    json.dumps({'image': image}),
                    json.dumps({'image': image[:-3]}),
                    json.dumps({'image': 7}),
                    json.dumps([image]),
                    json.dumps({'picture': image}),
                    '[' * 100_000,
                    '{"image": "' + 'A' * 1000 + '"}',
                    '9' * 10_000,
                    'NaN',
                    '\ud800'.encode('utf-8', 'surrogatepass').decode('latin-1'),
                    '',
                ]
            )
        )
    body = '\n'.join(lines).encode('latin-1')
    return Case('batch', [http(rng.choice([body, b'\n' * 5000, body]), '/predict/batch')])


# How often each kind is drawn.
KINDS = {whole: 10, truncated: 15, damaged: 20, no_image: 12, bomb: 4, wrong_length: 8}
KINDS |= {chunked: 6, slow: 3, left: 6, path: 10, headers: 8, no_http: 6, batch: 6}


def draw(seed, number):
    """Returns a case."""
    rng = random.Random(f'{seed} {number}')
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    return kind(rng)
