"""Image classification research in JAX and Flax: exact and resumable."""

import sys

if sys.argv[:1] == ['-m']:  # as Python sets it while it looks for the module of `python -m`
    import _signal  # type: ignore[import-not-found]  # `signal` takes longer to import
    import os

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # nohup may ignore it
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))
    from neptune_jax import exits

    exits.prepare()
