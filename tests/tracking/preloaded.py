"""What the fork server of programs.py imports: the Neptune client, and what sends runs."""

import importlib
import os
import sys

# Both as in neptune_jax/tracking/sinks/neptune.py.
sys.modules['rfc3987_syntax'] = None
os.environ['NEPTUNE_RETRIES_TIMEOUT'] = '10'

for name in ('cli', 'tracking.replay', 'tracking.sinks.neptune'):
    importlib.import_module(f'neptune_jax.{name}')
importlib.import_module('neptune')
