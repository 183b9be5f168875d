"""Runs the command that README.md shows; records what it printed and what came out.

    python -m experiments.four_networks.first_command
    python -m experiments.four_networks.first_command --out=FOLDER -- --config.train.epochs=1

It trains configs/cnn.py with an empty data folder and an empty compilation cache, as after a fresh
clone; some minutes on two CPU cores. The first form writes results/first_command.json and
docs/first_run.png, and renews the pages. The second takes more flags and writes to FOLDER alone.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from experiments import pages
from neptune_jax.runs import files, reader

COMMAND = 'python -m neptune_jax.main --config=configs/cnn.py --workdir=runs/cnn'
WIDTH, CURVES_WIDTH = 1400, 480  # pixels of the picture, and of the learning curves in it
MISTAKES_SHOWN = 7.0 / 11.4  # of the height of worst_mistakes.png: the title, three rows of five


def train(folder, flags):
    """Runs the command in a process; returns its run directory and the lines that it printed."""
    environ = {
        'TFDS_DATA_DIR': f'{folder}/data',
        'JAX_COMPILATION_CACHE_DIR': f'{folder}/compiled',
        'PYTHONUNBUFFERED': '1',
    }
    workdir = Path(folder, 'runs/cnn')
    command = [sys.executable, *COMMAND.split()[1:-1], f'--workdir={workdir}', *flags]
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    with subprocess.Popen(command, cwd=pages.ROOT, env=os.environ | environ, **options) as process:
        lines = []
        for line in process.stdout:
            print(line, end='', flush=True)
            lines.append(line.replace(f'{folder}/', '').replace(f'{pages.ROOT}/', '').rstrip())
    if process.returncode:
        sys.exit(f'the training has ended with status {process.returncode}')
    return workdir, lines


def draw(workdir):
    """Returns a picture of a run: its worst mistakes beside its learning curves."""
    mistakes = Image.open(workdir / 'artifacts/worst_mistakes.png').convert('RGB')
    mistakes = mistakes.crop((0, 0, mistakes.width, round(mistakes.height * MISTAKES_SHOWN)))
    left = WIDTH - CURVES_WIDTH
    mistakes = mistakes.resize((left, round(mistakes.height * left / mistakes.width)))
    rows, curves = reader.read_rows(workdir), io.BytesIO()
    figure = Figure(figsize=(CURVES_WIDTH / 100, mistakes.height / 100), layout='constrained')
    for axes, name in zip(figure.subplots(2), ('loss', 'accuracy'), strict=True):
        for split, marker in (('train', ''), ('val', 'o')):
            points = [
                (row['step'], row[f'{split}/{name}']) for row in rows if f'{split}/{name}' in row
            ]
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=split)
        axes.set(title=name, xlabel='step')
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(curves, dpi=100)
    picture = Image.new('RGB', (WIDTH, mistakes.height), 'white')
    picture.paste(mistakes)
    picture.paste(Image.open(curves), (left, 0))
    return picture.quantize(128)  # which makes a small file


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, help='folder; else results/, docs/ and the pages')
    parser.add_argument('flags', nargs='*', help='more flags of the training, after --')
    args = parser.parse_args()
    results, docs = args.out or pages.FIRST_COMMAND.parent, args.out or pages.ROOT / 'docs'
    with tempfile.TemporaryDirectory() as folder:
        workdir, lines = train(folder, args.flags)
        environment = files.read_json(workdir / 'environment.json')
        del environment['command']  # it has paths of this machine
        record = {
            'command': ' '.join([COMMAND, *args.flags]),
            'transcript': lines,
            'summary': files.read_json(workdir / 'summary.json'),
            'environment': environment,
        }
        results.mkdir(parents=True, exist_ok=True)
        draw(workdir).save(docs / 'first_run.png', optimize=True)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (results / pages.FIRST_COMMAND.name).write_text(f'{text}\n')
    if not args.out:
        pages.write()


if __name__ == '__main__':
    main()
