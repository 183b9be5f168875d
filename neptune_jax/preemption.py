"""Ending in good order when asked to: SIGTERM (a scheduler's) and SIGINT (Ctrl-C).

The first signal ends the run where that loses nothing: at once while it waits for data, compiles or
evaluates, else after the step it is in. The second one ends the process on the spot.
"""

import contextlib
import signal
import socket
import threading

import jax
from jax.experimental import multihost_utils

from neptune_jax.errors import Preempted


class Notice:
    """What a run knows of the signals it got. `watch` makes one."""

    def __init__(self):
        self._signal = None
        self._raises = True
        self.noticed = threading.Event()

    def _receive(self, number, frame):
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        self._signal = signal.Signals(number)
        self.noticed.set()
        if self._raises and not _in_destructor(frame):
            self._raise()

    def _raise(self):
        raise Preempted(f'{self._signal.name if self._signal else "a signal to another process"}')

    def check(self, step):
        """Raises Preempted if the run is to end before `step`; to be called before every step.

        Several processes agree on a step: none of them is left waiting for the others.
        """
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                self._raise()
        elif self._signal:
            self._raise()

    @contextlib.contextmanager
    def deferred(self):
        """What runs inside is not interrupted; `check` tells whether it was to be."""
        with self._raising(False):
            yield

    @contextlib.contextmanager
    def allowed(self):
        """What runs inside is left at once, with Preempted."""
        with self._raising(True):
            if self._signal and jax.process_count() == 1:
                self._raise()
            yield

    @contextlib.contextmanager
    def _raising(self, raises):
        before, self._raises = self._raises, raises
        try:
            yield
        finally:
            self._raises = before


@contextlib.contextmanager
def watch():
    """Yields the Notice of the signals that arrive until the context ends."""
    notice = Notice()
    if jax.process_count() > 1:
        # JAX has taken SIGTERM, to tell the other processes of it; it shall get Ctrl-C too.
        handlers = {signal.SIGINT: lambda *_: signal.raise_signal(signal.SIGTERM)}
    else:
        handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), notice._receive)
        handlers[_NUDGE] = lambda *_: None
    if threading.current_thread() is not threading.main_thread():
        yield notice  # Python gives signals to the main thread alone
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    receiver, sender = socket.socketpair()
    if _NUDGE in handlers:
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.fileno())
        threading.Thread(target=_nudge, args=(receiver, notice), daemon=True).start()
    try:
        yield notice
    finally:
        if _NUDGE in handlers:
            signal.set_wakeup_fd(-1)
        sender.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_destructor(frame):
    """Whether a frame is below a `__del__`, out of which no exception comes: `check` is next."""
    while frame and frame.f_code.co_name != '__del__':
        frame = frame.f_back
    return frame is not None


# A signal that means nothing, by which a system call of the main thread is interrupted.
_NUDGE = signal.SIGURG


def _nudge(receiver, notice):
    """Interrupts the main thread's wait where a signal came just before it.

    Python runs a handler before the next bytecode; a wait that had just begun would go on.
    """
    main = threading.main_thread().ident
    with receiver:
        while number := receiver.recv(1):
            while number[0] != _NUDGE and not notice.noticed.wait(0.05):
                signal.pthread_kill(main, _NUDGE)
