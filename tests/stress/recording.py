"""Results of the stress tests: a line of JSON each, with the machine that they come from."""

import json
from pathlib import Path
from typing import Any

from neptune_jax.runs import environment


def record(result: dict[str, Any], out: str | None) -> None:
    """Prints a result, and adds it to a file if one is named."""
    line = json.dumps(result | environment.machine())
    print(line)
    if out:
        with Path(out).open('a') as file:
            file.write(f'{line}\n')
