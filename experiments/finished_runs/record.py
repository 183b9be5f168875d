"""Records what commands print for finished runs; docs/finished_runs.md shows it.

    python -m neptune_jax.main --config=configs/cnn.py --config.train.epochs=10
    python -m neptune_jax.main --config=configs/cnn.py --config.train.epochs=3 \\
        --workdir=runs/cnn_short
    python experiments/finished_runs/record.py

The commands run in the current folder. What they print goes to results/, a picture to docs/, and
`python -m experiments.pages` prints it into the page.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from neptune_jax.runs.environment import machine

RESULTS = Path(__file__).parent / 'results'
DOCS = Path(__file__).parents[2] / 'docs'
TRANSCRIPTS = {
    'evaluate': 'python -m neptune_jax.evaluate runs/cnn',
    'temperature': 'python -m neptune_jax.evaluate runs/cnn --temperature=fit --save',
    'shift': 'python -m neptune_jax.evaluate runs/cnn --tta=shift',
    'flip': 'python -m neptune_jax.evaluate runs/cnn --tta=flip',
    'compare': 'python -m neptune_jax.evaluate runs/cnn --compare=runs/cnn_short',
}


def main():
    RESULTS.mkdir(exist_ok=True)
    for name, command in TRANSCRIPTS.items():
        program = [sys.executable, *command.split()[1:]]
        env = os.environ | {'COLUMNS': '80'}
        done = subprocess.run(program, env=env, capture_output=True, text=True, check=True)
        record = {'command': command, 'lines': done.stdout.splitlines(), **machine()}
        (RESULTS / f'{name}.json').write_text(json.dumps(record, indent=1) + '\n')
        print(done.stdout)
    name = 'reliability_diagram.png'
    shutil.copy(f'runs/cnn/evaluations/test_temperature_fit/{name}', DOCS / name)


if __name__ == '__main__':
    main()
