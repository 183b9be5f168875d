"""Ending in good order when asked to: SIGTERM (a scheduler's) and SIGINT (Ctrl-C).

The first signal ends the run where that loses nothing: at once while it waits for data, compiles or
evaluates, else after the step it is in. The second one ends the process on the spot.
"""

import contextlib
import signal

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h: nothing is wrong; the same command, later, goes on.
EXIT_STATUS = 75


class Preempted(Exception):
    """The run has been asked to end."""


class Notice:
    """What a run knows of the signals it got. `watch` makes one."""

    def __init__(self):
        self._signal = None
        self._raises = True

    def _receive(self, number, frame):
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        self._signal = signal.Signals(number)
        if self._raises:
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
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
