"""Starts a training so that it ends with its sweep: run as a script, it becomes the training.

    python -I launch.py PARENT CORES COMMAND...

If the process PARENT dies, even by SIGKILL, the training gets SIGTERM: it saves its state and
ends. CORES is a list such as 0,1 of those it may use; - stands for all. Nothing of the package is
imported, so that it takes no time.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of prctl in Linux


def main() -> None:
    """Becomes the command."""
    parent, cores, *command = sys.argv[1:]
    prctl = getattr(ctypes.CDLL(None), 'prctl', None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before that
        sys.exit(75)
    if cores != '-' and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, map(int, cores.split(',')))
    os.execv(command[0], command)


if __name__ == '__main__':
    main()
