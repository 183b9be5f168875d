"""Stopping in good order on SIGTERM (from a scheduler) and SIGINT (Ctrl-C).

The first signal stops the run where nothing is lost: at once while it waits for data, compiles or
evaluates, otherwise after the current step. The second signal ends the process at once.
"""

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import jax
from jax.experimental import multihost_utils

from neptune_jax.errors import Preempted


class Preemption:
    """Whether the run was asked to stop. `watch` creates one."""

    def __init__(self) -> None:
        self._signal = None
        self._raises = True
        self._postponed = False  # to be raised as soon as an exception can propagate
        self.requested = threading.Event()

    def _receive(self, number, frame):
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        self._signal = signal.Signals(number)
        self._postponed = True
        self.requested.set()
        self._remind(number, frame)

    def _remind(self, number, frame):
        if not self._raises:
            self._postponed = False  # `check` or `allowed` will raise it
        elif self._postponed and not _is_in_destructor(frame):
            self._raise()

    def _is_unanswered(self):
        return self._postponed or not self.requested.is_set()

    def _raise(self):
        self._postponed = False
        raise Preempted(self._signal.name if self._signal else 'a signal to another process')

    def _take_unraisable(self, sender, hook_before, unraisable):
        """Raises Preempted again if Python has dropped it, as it does in a callback of `gc`."""
        if not issubclass(unraisable.exc_type, Preempted):
            hook_before(unraisable)
            return
        self._postponed = True
        sender.send(bytes([self._signal or signal.SIGTERM]))  # to `_wake_up_main_thread`

    def check(self, step: int) -> None:
        """Raises Preempted if the run is to stop before `step`. Call it before every step.

        Several processes agree on the step, so that none waits for another.
        """
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                self._raise()
        elif self._signal:
            self._raise()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal does not interrupt this context; `check` raises Preempted later."""
        with self._raising(False):
            yield

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """A signal leaves this context at once, with Preempted."""
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
def watch() -> Iterator[Preemption]:
    """Yields the Preemption that receives the signals of this process inside the context."""
    preemption = Preemption()
    if jax.process_count() > 1:
        # JAX handles SIGTERM and tells the other processes. It should handle Ctrl-C too.
        handlers = {signal.SIGINT: lambda *_: signal.raise_signal(signal.SIGTERM)}
    else:
        handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), preemption._receive)
        handlers[_WAKE_UP] = preemption._remind
    if threading.current_thread() is not threading.main_thread():
        yield preemption  # only the main thread can handle signals
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    receiver, sender = socket.socketpair()
    if _WAKE_UP in handlers:
        sender.setblocking(False)
        woken_before = signal.set_wakeup_fd(sender.fileno())  # a notebook's event loop has one
        threading.Thread(
            target=_wake_up_main_thread, args=(receiver, preemption), daemon=True
        ).start()
        hook_before = sys.unraisablehook
        sys.unraisablehook = partial(preemption._take_unraisable, sender, hook_before)
    try:
        yield preemption
    finally:
        if _WAKE_UP in handlers:
            sys.unraisablehook = hook_before
            signal.set_wakeup_fd(woken_before)
            preemption._postponed = False
        sender.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_destructor(frame):
    """Whether a frame runs inside a `__del__`, from which Python lets no exception propagate."""
    while frame and frame.f_code.co_name != '__del__':
        frame = frame.f_back
    return frame is not None


# A signal with no meaning of its own, sent to interrupt a system call of the main thread.
_WAKE_UP = signal.SIGURG


def _wake_up_main_thread(receiver, preemption):
    """Interrupts the main thread until it has answered a signal.

    Python runs a handler between two bytecodes. If a signal arrives just before the main thread
    blocks in a system call, the handler would wait for that call to return. And where a handler
    cannot raise, it must run again.
    """
    main = threading.main_thread().ident
    with receiver:
        while number := receiver.recv(1):
            while number[0] != _WAKE_UP and preemption._is_unanswered():
                time.sleep(0.05)
                if preemption._is_unanswered():
                    signal.pthread_kill(main, _WAKE_UP)
