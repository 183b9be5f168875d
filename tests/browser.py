"""A headless Chromium, driven over its DevTools protocol through two pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ('chromium', 'chromium-browser', 'google-chrome')


def find():
    """Returns the path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """An empty page. What its console prints and what it asks of the network is kept."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._session, self._number = None, 0
        self.console: list[str] = []
        self.addresses: list[str] = []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network', 'DOM', 'Accessibility'):
            self.call(f'{domain}.enable')

    def call(self, method, **params):
        """Calls a method of the protocol; returns its result."""
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': params}
        if self._session:
            message['sessionId'] = self._session
        self._to.write(json.dumps(message).encode() + b'\0')
        self._to.flush()
        while True:
            text = bytearray()
            while (byte := self._from.read(1)) != b'\0':
                if not byte:
                    raise RuntimeError('Chromium has ended')
                text += byte
            answer = json.loads(text)
            if answer.get('id') == self._number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]}')
                return answer['result']
            self._keep(answer)

    def _keep(self, event):
        params = event.get('params', {})
        if event['method'] == 'Log.entryAdded':
            self.console.append(params['entry']['text'])
        elif event['method'] == 'Runtime.consoleAPICalled':
            self.console.append(str(params['args']))
        elif event['method'] == 'Runtime.exceptionThrown':
            self.console.append(str(params['exceptionDetails']))
        elif event['method'] == 'Network.requestWillBeSent':
            self.addresses.append(params['request']['url'])

    def run(self, script):
        """Returns the value of a script's last expression."""
        result = self.call(
            'Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True
        )
        if 'exceptionDetails' in result:
            raise RuntimeError(str(result['exceptionDetails']))
        return result['result'].get('value')

    def wait(self, condition):
        """Waits until an expression is true."""
        deadline = time.monotonic() + 30
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f'{condition}; the page shows: {self.text("body")}')
            time.sleep(0.05)

    def open(self, address):
        """Opens an address and waits until it is loaded."""
        self.call('Page.navigate', url=address)
        self.wait(f'location.href === {json.dumps(address)} && document.readyState === "complete"')

    def text(self, selector):
        """Returns the text that an element shows."""
        return self.run(f'document.querySelector({json.dumps(selector)}).innerText')

    def choose(self, selector, path):
        """Chooses a file in an input, as its dialog does."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node)

    def drop(self, path):
        """Drops a file in the middle of the page."""
        data = {'items': [], 'files': [str(path)], 'dragOperationsMask': 1}
        for kind in ('dragEnter', 'dragOver', 'drop'):
            self.call('Input.dispatchDragEvent', type=kind, x=200, y=200, data=data)

    def press(self, key, code, text=''):
        """Presses a key."""
        for kind in ('keyDown', 'keyUp'):
            self.call(
                'Input.dispatchKeyEvent',
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text if kind == 'keyDown' else '',
            )

    def screenshot(self, path, width=900, height=1000, dark=False):
        """Writes a PNG file of the page."""
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.call('Emulation.setEmulatedMedia', features=[scheme])
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        content = self.call('Page.captureScreenshot', captureBeyondViewport=True)['data']
        Path(path).write_bytes(base64.b64decode(content))


@contextlib.contextmanager
def page(folder):
    """Yields a Page of a browser whose profile is in a folder."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    flags = '--headless=new --no-first-run --disable-gpu --disable-dev-shm-usage --no-sandbox'
    flags += ' --disable-background-networking --disable-component-update --disable-sync'
    # The browser reads from file 3 and writes to file 4.
    command = f'exec "$0" {flags} --user-data-dir="$1" --remote-debugging-pipe'
    command += f' 3<&{to_read} 4>&{from_write}'
    process = subprocess.Popen(
        ['bash', '-c', command, find(), str(folder)],
        pass_fds=(to_read, from_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    with open(to_write, 'wb') as to_browser, open(from_read, 'rb') as from_browser:
        try:
            yield Page(to_browser, from_browser)
        finally:
            process.kill()
            process.wait()
