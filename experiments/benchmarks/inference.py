"""How fast images are predicted: beside an evaluation, decoding alone, and PyTorch.

    python -m experiments.benchmarks.inference --torch=PYTHON

Decoded: the evaluation of a run, and what `predict` does with the same images once they are
decoded. Files: JPEG files of 640 x 480 pixels to rows of a CSV file; decoding alone on all cores;
PyTorch with a DataLoader, the same network and the same files. All take turns, and a ratio is of
one round. PYTHON is an interpreter with PyTorch, NumPy and Pillow.
"""

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

# What imports JAX is imported where it is used: worker processes import this module too.

RESULTS = Path(__file__).parent / 'results/inference.jsonl'
IMAGE_SHAPE = (32, 32, 3)
BATCH_SIZE = 256
JPEG_SIZE = (640, 480)
TOP = 3
NETWORKS = ('cnn', 'cnn3')
CLASSES = 10
EVALUATION, DECODED = 'evaluation', 'predict, decoded'
DECODING, FILES, TORCH = 'decoding', 'predict, files', 'torch, files'


def write_files(folder: Path, distinct: int, count: int) -> list[str]:
    """Writes JPEG files that compress as photographs do; returns names, each several times."""
    rng = np.random.default_rng(0)
    names = [str(folder / f'{number}.jpg') for number in range(distinct)]
    for name in names:
        width, height = JPEG_SIZE
        small = rng.integers(0, 256, (height // 25, width // 25, 3)).astype(np.uint8)
        smooth = Image.fromarray(small).resize(JPEG_SIZE, Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth) + rng.normal(0, 8, (height, width, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(name, quality=85)
    return [names[number % distinct] for number in range(count)]


def train(network: str, folder: Path):
    """Trains for a step on synthetic images. Returns the run directory and its config."""
    from neptune_jax.training import loop

    config = importlib.import_module(f'configs.{network}').get_config()
    config.data.update(name='synthetic', examples=12_000, classes=CLASSES)
    config.data.update(dir=str(folder / 'data'), image_size=IMAGE_SHAPE[:2], channels=3)
    config.train.update(steps=1)
    config.eval.update(batch_size=BATCH_SIZE)
    loop.train_and_evaluate(config, folder / network)
    return folder / network, config


def decoded(run: Path, config, count: int) -> dict:
    """Returns functions that evaluate and predict test images of a run, by name.

    Each of the test images is there several times.
    """
    import jax

    from neptune_jax import experiment as experiments
    from neptune_jax.data import feed
    from neptune_jax.inference import predictor
    from neptune_jax.predicting import prediction
    from neptune_jax.training import compiled

    experiment = experiments.create(config)
    data = experiment.dataset
    test = np.resize(data.splits['test'], count)
    images = np.array(data.read_images(test))
    names = [f'{number:06}.png' for number in test]
    state = experiments.init_state(experiment)
    evaluate = compiled.compile_evaluate(experiment, feed.create(data, experiment.parallel))
    ours = predictor.Predictor.from_run(run)

    def evaluation():
        jax.block_until_ready(evaluate(state, test))

    def predict():
        with _output(names) as output:
            prediction.write_predictions(
                ours, names, iter(images), output, top=TOP, batch_size=BATCH_SIZE
            )

    return {EVALUATION: evaluation, DECODED: predict}


def from_files(run: Path, files: list[str], process) -> dict:
    """Returns functions that decode files, and that predict them here and in PyTorch, by name."""
    from neptune_jax.inference import predictor
    from neptune_jax.predicting import image_files, prediction

    ours, cores = predictor.Predictor.from_run(run), os.cpu_count()

    def decoding():
        sample = image_files.Sample(files, ours.conversion)
        for _ in image_files.read_all(files, ours.conversion, sample, processes=cores):
            pass

    def predict():
        with _output(files) as output:
            options = {'top': TOP, 'batch_size': BATCH_SIZE, 'processes': cores}
            prediction.predict_files(ours, files, output, progress=False, **options)

    def torch():
        process.stdin.write('predict\n')
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    return {DECODING: decoding, FILES: predict, TORCH: torch}


@contextlib.contextmanager
def _output(names):
    """Yields an output to a CSV file that is removed."""
    from neptune_jax.predicting import outputs

    with (
        tempfile.TemporaryDirectory() as folder,
        outputs.open_output(
            f'{folder}/rows.csv', 'text', TOP, names, batch_size=BATCH_SIZE, resume=False
        ) as output,
    ):
        yield output


@contextlib.contextmanager
def torch_process(python: str, run: Path, files: list[str]):
    """Yields the process in which PyTorch predicts the files, and stops it."""
    from neptune_jax.runs import reader

    model = reader.read_config(run)['model']
    listed = run / 'files.txt'
    listed.write_text('\n'.join(files))
    task = {
        'network': {key: model[key] for key in ('features', 'kernel_size', 'padding', 'hidden')},
        'image_shape': IMAGE_SHAPE,
        'batch_size': BATCH_SIZE,
        'workers': os.cpu_count(),
        'files': str(listed),
        'out': str(run / 'torch.csv'),
    }
    process = subprocess.Popen(
        [python, '-m', 'experiments.benchmarks.contestants.torch_inference', json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def take_turns(contestants: dict, images: int, rounds: int) -> tuple[dict, dict]:
    """Returns images per second of each contestant in each round, after one to warm up.

    And the processor time of each, the median over rounds in milliseconds an image, which depends
    less on what else the machine does.
    """
    rates, costs = ({name: [] for name in contestants} for _ in range(2))
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            began, before = time.perf_counter(), processor_seconds()
            answer = contestant()
            seconds, used = time.perf_counter() - began, processor_seconds() - before
            if number:
                rates[name].append(round(images / seconds, 1))
                costs[name].append((answer or {}).get('processor_seconds', used) / images * 1000)
    return rates, {name: round(statistics.median(own), 3) for name, own in costs.items()}


def processor_seconds() -> float:
    """Returns the processor time of this process and of those it has started that ended."""
    return sum(os.times()[:4])


def ratio(rates: dict[str, list[float]], name: str, to: str) -> dict[str, float]:
    """Returns the median and the quartiles, over rounds, of the ratio of two contestants."""
    ratios = [own / base for own, base in zip(rates[name], rates[to], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return {'median': round(median, 3), 'low': round(low, 3), 'high': round(high, 3)}


def measure(network: str, args: argparse.Namespace) -> dict:
    """Returns the record of a network."""
    import jax

    from neptune_jax.runs import environment

    with tempfile.TemporaryDirectory() as folder:
        run, config = train(network, Path(folder))
        files = write_files(Path(folder), args.distinct, args.files)
        with torch_process(args.torch, run, files) as process:
            in_memory, costs = take_turns(
                decoded(run, config, args.images), args.images, args.rounds
            )
            contestants = from_files(run, files, process)
            rates, more = take_turns(contestants, args.files, args.rounds)
            version = contestants[TORCH]()['torch']
    return {
        'benchmark': 'inference',
        'network': network,
        'image_shape': IMAGE_SHAPE,
        'batch_size': BATCH_SIZE,
        'files': args.files,
        'images': args.images,
        'images_per_second': in_memory | rates,
        'processor_milliseconds_an_image': costs | more,
        'ratios': {
            'predict to evaluation': ratio(in_memory, DECODED, EVALUATION),
            'predict to decoding': ratio(rates, FILES, DECODING),
            'predict to torch': ratio(rates, FILES, TORCH),
        },
        'load': [round(each, 1) for each in os.getloadavg()],
        'packages': {'jax': jax.__version__, 'torch': version, 'pillow': Image.__version__},
        **environment.machine(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--torch', default=sys.executable, help='an interpreter with PyTorch')
    parser.add_argument('--networks', nargs='+', default=NETWORKS, help='names of configs')
    parser.add_argument('--out', type=Path, default=RESULTS, help='JSON lines')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--images', type=int, default=20_000, help='that are decoded already')
    parser.add_argument('--files', type=int, default=8_000)
    parser.add_argument('--distinct', type=int, default=1_000, help='files; each is named often')
    args = parser.parse_args()
    records = [measure(network, args) for network in args.networks]
    with args.out.open('w') as file:
        for record in records:
            file.write(json.dumps(record) + '\n')
            print(record)


if __name__ == '__main__':
    from neptune_jax.devices import startup

    startup.prepare()  # as our commands do
    main()
