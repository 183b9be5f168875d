"""Image classification research in JAX and Flax: small, exact, resumable."""

import sys

if sys.argv[:1] == ['-m']:  # as Python sets it while it looks for the module of `python -m`
    import _signal  # of `signal`, whose own import takes so long that a Ctrl-C would hit it
    import os

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # nohup may ignore it
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))
    from neptune_jax import exits

    exits.prepare()
