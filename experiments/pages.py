"""Writes the figures of README.md, docs/ and experiments/ from the files of results.

    python -m experiments.pages            renews the pages
    python -m experiments.pages --check    names the pages that are out of date; status 1 if any

In a page, `<!-- figures: NAME -->` begins the text that the function NAME of BLOCKS returns, and
`<!-- end -->` ends it.
"""

import argparse
import json
import re
import statistics
import sys
import textwrap
from pathlib import Path

import numpy as np

from experiments.benchmarks import serving, training, versions
from experiments.four_networks import run as four_networks
from experiments.speedrun import config as speedrun

ROOT = Path(__file__).parents[1]
FIRST_COMMAND = four_networks.RESULTS / 'first_command.json'
FINISHED_RUNS = ROOT / 'experiments/finished_runs/results'
DATA = 'experiments/benchmarks/results/data.jsonl'
SPLITS = 'experiments/benchmarks/results/splits.jsonl'
NEAR_DUPLICATES = 'experiments/benchmarks/results/near_duplicates.jsonl'
INFERENCE = 'experiments/benchmarks/results/inference.jsonl'
SWEEPS = 'experiments/benchmarks/results/sweeps.jsonl'
TOGETHER = 'experiments/benchmarks/results/together.jsonl'
SPEEDRUN = 'experiments/speedrun/results'
_BLOCK = re.compile(r'(<!-- figures: (.+?) -->\n).*?(?=<!-- end -->)', re.DOTALL)


def write():
    """Renews the pages."""
    for path, text in _updated():
        path.write_text(text)
        print(f'renewed {path.relative_to(ROOT)}')


def _updated():
    """Yields each page that is out of date, with its new text."""
    for path in (ROOT / 'README.md', *ROOT.glob('docs/*.md'), *ROOT.glob('experiments/*/*.md')):
        text = path.read_text()
        new = _BLOCK.sub(lambda match: f'{match[1]}{BLOCKS[match[2]]()}\n', text)
        if new != text:
            yield path, new


def _read(name):
    """Returns the records of a file of JSON lines in the repository."""
    return [json.loads(line) for line in (ROOT / name).read_text().splitlines()]


def _paragraph(text):
    return textwrap.fill(' '.join(text.split()), 100, break_on_hyphens=False)


# ----------------------------------------------------------------------------------- four networks
def transcript():
    """Returns an excerpt of what the first command printed."""
    lines = json.loads(FIRST_COMMAND.read_text())['transcript']

    def numbers(prefix):
        return [i for i, line in enumerate(lines) if line.strip().startswith(prefix)]

    (data,), (length,), (compiled,) = map(numbers, ('data ', 'length', 'compiled'))
    rows, epochs, (best, trained) = numbers('step'), numbers('epoch'), numbers(('best ', 'trained'))
    best_epoch = [i for i in epochs if lines[i].endswith('best so far')][-1]
    source, (test,) = numbers('fashion_mnist:')[-1], numbers('test, best')
    shown = {source, *range(data, length + 1), compiled, rows[0], epochs[0], best_epoch, epochs[-1]}
    shown |= {*range(test, test + 6), best, trained}
    excerpt, previous = ['```'], source - 1
    for number in sorted(shown):
        excerpt += ['...'] * (number > previous + 1) + [lines[number]]
        previous = number
    return '\n'.join([*excerpt, '```'])


def networks():
    """Returns the test accuracies and speeds of the four networks."""
    accuracy, speed = (four_networks.RESULTS / f'{name}.jsonl' for name in ('accuracy', 'speed'))
    return four_networks.table(four_networks.read(accuracy), four_networks.read(speed))


def number_types():
    """Returns the test accuracies of `cnn3` in float32 and in bfloat16."""
    lines = ['| type | test accuracy, mean and sample deviation |', '|---|---:|']
    for name in ('float32', 'bfloat16'):
        tests = [
            record['test']['accuracy']
            for record in four_networks.read(four_networks.RESULTS / f'{name}.jsonl')
        ]
        lines.append(f'| {name} | {statistics.mean(tests):.4f} ± {statistics.stdev(tests):.4f} |')
    return '\n'.join(lines)


# ----------------------------------------------------------------------------------- finished runs
def finished(name, start=''):
    """Returns what a command for a finished run printed, from the first line with a start on."""
    record = json.loads((FINISHED_RUNS / f'{name}.json').read_text())
    lines = record['lines']
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    shown = ['...'] * (first > 0) + [line.rstrip() for line in lines[first:]]
    return '\n'.join(['```', f'$ {record["command"]}', *shown, '```'])


def views():
    """Returns a sentence about the accuracy with several views of each image."""
    names = {'evaluate': 'once', 'shift': 'with `shift`', 'flip': 'with `flip`'}
    accuracies = []
    for name, words in names.items():
        lines = json.loads((FINISHED_RUNS / f'{name}.json').read_text())['lines']
        (row,) = (line for line in lines if '│ accuracy ' in line)
        accuracies.append(f'{row.split("│")[2].strip()} {words}')
    return _paragraph(f"""
        The run above was trained with neither and reaches {', '.join(accuracies)}: nearly all shoes
        of Fashion-MNIST point to the left, and their mirror images are new to the network.""")


# ----------------------------------------------------------------------------------------- reports
def report_of_optimizers():
    """Returns what the report command prints of two optimizers with six seeds each."""
    from neptune_jax import terminal
    from neptune_jax.reporting import records, report_formats, selection

    found = records.read([FINISHED_RUNS / 'optimizers.jsonl'])
    width, terminal.console.width = terminal.console.width, 80
    with terminal.console.capture() as printed:
        report_formats.show(report_formats.create(found, selection.Options()))
    terminal.console.width = width
    lines = [line.rstrip() for line in printed.get().rstrip().splitlines()]
    return '\n'.join(['```', '$ python -m neptune_jax.report optimizers.jsonl', *lines, '```'])


# ---------------------------------------------------------------------------------------- training
def libraries():
    """Returns images per second of a training step of `cnn3` in float32, in each library."""
    names = {
        'flax': 'plain Flax',
        'keras': 'Keras 3 on JAX',
        'torch': 'PyTorch, eager',
        'torch channels last': 'PyTorch, eager, channels last',
        'torch compile': 'PyTorch, `torch.compile`',
    }
    records, _ = training.read()
    rates = {
        record['contestant']: np.median(record['plain']['images_per_second'])
        for record in records
        if (record['network'], record['batch_size']) == ('cnn3', 128)
    }
    lines = [
        '| | images/s, median | how many times as fast neptune_jax is |',
        '|---|---:|---:|',
        f'| neptune_jax | {rates[training.OURS]:,.0f} | |',
    ]
    for key, name in names.items():
        speedup = training.speedup(records, 'cnn3', 128, key)
        lines.append(f'| {name} | {rates[key]:,.0f} | {speedup:.2f} |')
    return '\n'.join(lines)


def other_sizes():
    """Returns a paragraph about other batch sizes, other networks and the time to an accuracy."""
    records, races = training.read()

    def times(network, batch_size, contestant):
        return f'{training.speedup(records, network, batch_size, contestant):.2f}'

    seconds = {record['contestant']: f'{record["train_seconds"]:.0f} s' for record in races}
    (goal,) = {f'{record["goal"]:.0%}' for record in races}
    return _paragraph(f"""
        At batch 512, `cnn3` trains {times('cnn3', 512, 'flax')} times as fast as in plain Flax and
        {times('cnn3', 512, 'torch channels last')} times as fast as in PyTorch with the channels
        last; at batch 32, {times('cnn3', 32, 'flax')} and
        {times('cnn3', 32, 'torch channels last')} times. At batch 128, `simple_net` trains
        {times('simple_net', 128, 'flax')} times as fast as in plain Flax and
        {times('simple_net', 128, 'torch')} times as fast as in eager PyTorch; ResNet-20
        {times('resnet20', 128, 'flax')} and {times('resnet20', 128, 'torch')} times. Until
        {goal} of the test images are right, `cnn3` trains for {seconds['ours']} here,
        {seconds['flax']} in plain Flax and {seconds['torch']} in eager PyTorch.""")


def libraries_in_short():
    """Returns the speeds of a training step of `cnn3` in a sentence."""
    records, _ = training.read()
    flax, keras, torch, channels_last = (
        f'{training.speedup(records, "cnn3", 128, name):.2f}'
        for name in ('flax', 'keras', 'torch', 'torch channels last')
    )
    return _paragraph(f"""
        On two CPU cores a training step of `cnn3` (batch 128, float32) is {flax} times as fast as
        in plain Flax, {keras} times as in Keras 3 on JAX, {torch} times as in eager PyTorch, and
        {channels_last} times as in PyTorch with the channels last ([speed](docs/speed.md)).""")


def bfloat16():
    """Returns a sentence about the speed of bfloat16 on a processor without AMX."""
    records, _ = training.read()
    rates = [
        f'{training.speedup(records, name, 128, "ours bfloat16"):.2f} times (`{name}`)'
        for name in ('cnn3', 'simple_net', 'resnet20')
    ]
    return _paragraph(f"""
        Measured without AMX, at batch 128: float32 trains {rates[0]}, {rates[1]} and {rates[2]} as
        fast as bfloat16.""")


# ------------------------------------------------------------------------------------------ others
def start():
    """Returns the seconds from the start of the command to the first training step."""
    lines = ['| config | cold | warm |', '|---|---:|---:|']
    for record in _read('experiments/benchmarks/results/startup.jsonl'):
        warm = record['warm_seconds']
        lines.append(
            f'| `{record["config"]}` | {record["cold_seconds"]:.1f} s '
            f'| {record["warm_median"]:.1f} s ({min(warm):.1f}-{max(warm):.1f}) |'
        )
    return '\n'.join(lines)


def checkpoints():
    """Returns a sentence about what checkpoints cost."""
    (record,) = _read('experiments/benchmarks/results/checkpoints.jsonl')
    return _paragraph(f"""
        One a minute costs a training of `cnn` {record['share_of_a_minute']:.2%} of its throughput
        ([benchmarks](../experiments/benchmarks/README.md#checkpoints)).""")


def folder():
    """Returns a sentence about the preparation of a folder of images."""
    (record,) = _data('folder')
    return _paragraph(f"""
        A folder of {record['images']:,} JPEG images took {record['prepare_seconds']:.0f} s to
        prepare on two CPU cores, and {record['open_again_seconds']:.2f} s to open again
        ([results](../{DATA})).""")


def splits():
    """Returns a paragraph about the splits by a hash, compared with stratified ones."""
    records = {(each['data'], each['method']): each for each in _read(SPLITS)}
    by_hash, stratified = (
        records['fashion_mnist_mini', method]['test'] for method in ('by_hash', 'stratified')
    )
    size, classes = by_hash['size'], by_hash['of_each_class']
    first = records['imbalanced', 'by_hash']
    small, missing = first['test'], records['imbalanced', 'stratified']['test']
    sizes = first['class_sizes']
    return _paragraph(f"""
        A tenth of the {sum(records['fashion_mnist_mini', 'by_hash']['class_sizes']):,} images of
        `fashion_mnist_mini`, over {first['seeds']} seeds: by hash {size['mean']:.0f} ±
        {size['deviation']:.0f} images test ({size['low']:.0f} to {size['high']:.0f}), and of each
        class {np.mean([each['mean'] for each in classes]):.0f} ±
        {np.mean([each['deviation'] for each in classes]):.0f}
        ({min(each['low'] for each in classes):.0f} to {max(each['high'] for each in classes):.0f});
        stratified always {stratified['size']['mean']:.0f}, and
        {stratified['of_each_class'][0]['mean']:.0f} of each class. Of {sum(sizes):,} images in
        {len(sizes)} classes of {min(sizes)} to {max(sizes):,}, {small['size']['mean']:.0f} ±
        {small['size']['deviation']:.0f} test. The smallest class is without a test image in
        {small['seeds_with_a_class_missing']} of the seeds; stratified, in
        {missing['seeds_with_a_class_missing']} ([results](../{SPLITS})).""")


def together():
    """Returns a table of what training seeds in one program gains, and where it was measured."""
    records = {(each['network'], each['seeds'], each['form']): each for each in _read(TOGETHER)}
    counts = sorted({seeds for _, seeds, _ in records})
    forms = list(dict.fromkeys(form for _, _, form in records))
    columns = [(form, count) for form in forms for count in counts]
    lines = ['| | ' + ' | '.join(f'{count} {form}' for form, count in columns) + ' |']
    lines += ['|---' * (1 + len(columns)) + '|']
    for network in dict.fromkeys(network for network, _, _ in records):
        gains = [f'{records[network, count, form]["gain"]:.2f}' for form, count in columns]
        lines += [f'| `{network}` | ' + ' | '.join(gains) + ' |']
    machine = next(iter(records.values()))
    return (
        '\n'.join(lines)
        + '\n\n'
        + _paragraph(f"""
        Seeds an hour in one program, over those one after another, for steps of batch 128: 1 to
        {max(counts)} seeds on {machine['cpu_count']} cores of an {machine['processor']}, JAX
        {machine['jax']}, on a machine that was busy with other work
        ([results](../{TOGETHER})).""")
    )


def near_duplicates():
    """Returns a table of how many changed copies are found, and a paragraph of what else is."""
    now, before = (
        next(each for each in _read(NEAR_DUPLICATES) if each['method'] == method)
        for method in ('by_pictures', 'by_difference_hash')
    )
    rows = [
        f'| {name} | {now["recall"][name]:.2%} | {before["recall"][name]:.2%} |'
        for name in now['recall']
    ]
    text = _paragraph(f"""
        Of all {now['images']:,} images, {now['near_duplicates']} are near duplicates (by the old
        hash {before['near_duplicates']}); of 200 different pictures of horizontal bars,
        {now['near_duplicates_of_200_bars']} (old hash {before['near_duplicates_of_200_bars']}). The
        search took {now['cpu_seconds']:.0f} s of processor time, once, when the data set was
        prepared ([results](../{NEAR_DUPLICATES})).""")
    return '\n'.join(
        [
            f'| {now["copies"]:,} images of Fashion-MNIST, copied and | found | by the "difference '
            'hash" of earlier versions |',
            '|---|---:|---:|',
            *rows,
            '',
            text,
        ]
    )


def modes():
    """Returns a sentence about the speed of a training in each mode of the data."""
    ratios = {each['mode']: f'{each["median_ratio_to_device"]:.3f}' for each in _data('throughput')}
    return _paragraph(f"""
        On two CPU cores `host` trains `cnn3` at {ratios['host']} and `stream` at
        {ratios['stream']} times the speed of `device` ([results](../{DATA})).""")


def _data(benchmark):
    return [record for record in _read(DATA) if record['benchmark'] == benchmark]


def inference():
    """Returns a table of how fast images are predicted, and on which machine."""
    columns = {
        'predict to evaluation': 'decoded, against an evaluation',
        'predict to decoding': 'files, against decoding alone',
        'predict to torch': 'files, against PyTorch',
    }
    records = _read(INFERENCE)
    titles = ' | '.join(['network', 'files/s, median', *columns.values()])
    lines = [f'| {titles} |', '|---|---:|---:|---:|---:|']
    for record in records:
        rate = statistics.median(record['images_per_second']['predict, files'])
        ratios = [
            f'{ratio["median"]:.2f} ({ratio["low"]:.2f}-{ratio["high"]:.2f})'
            for ratio in (record['ratios'][name] for name in columns)
        ]
        lines.append(f'| `{record["network"]}` | {rate:,.0f} | {" | ".join(ratios)} |')
    first, packages = records[0], records[0]['packages']
    costs = first['processor_milliseconds_an_image']
    text = _paragraph(f"""
        Ratios are medians over rounds in alternation, with quartiles. Processor time a file, with
        `{first['network']}`: {costs['predict, files']:.2f} ms, decoding alone
        {costs['decoding']:.2f} ms, PyTorch {costs['torch, files']:.2f} ms. {first['processor']},
        {first['cpu_count']} cores, Python {first['python']}, JAX {packages['jax']}, PyTorch
        {packages['torch']}, Pillow {packages['pillow']}; the load of the machine was
        {first['load'][2]:.1f}.""")
    return '\n'.join([*lines, '', text])


def kills():
    """Returns a paragraph about the trainings that were killed and started again."""
    records = [each for each in _read('tests/stress/results.jsonl') if 'kills' in each]
    latest = {record['jax']: record for record in records}  # of each version
    return _paragraph(' '.join(map(_killed, latest.values())))


def _killed(record):
    names = (name for name in ('SIGKILL', 'SIGTERM', 'SIGINT') if name in record)
    signals = ', '.join(f'{record[name]} by {name}' for name in names)
    return f"""
        Of {record['runs']} runs with **{record['kills']} kills** ({signals}),
        {record['runs_that_differ']} ended differently, {record['rows_lost']} rows were lost,
        {record['rows_twice']} were written twice, and {record['needed_a_hand']} runs needed a hand
        ([results](../tests/stress/results.jsonl): {record['cpu_count']} CPU cores, Python
        {record['python']}, JAX {record['jax']}, seed {record['seed']})."""


def tracking():
    """Returns a paragraph about senders that were killed, and about what tracking costs."""
    stress = 'tests/stress/results.jsonl'
    speed = 'experiments/benchmarks/results/tracking.jsonl'
    killed = [each for each in _read(stress) if 'kills_of_sync' in each][-1]
    cost = _read(speed)[-1]
    return _paragraph(f"""
        After {killed['kills_of_sync']} kills, the server had {killed['runs_on_the_server']} run;
        of its {killed['points']:,} points, {killed['points_wrong']} were missing, wrong or there
        twice ([results](../{stress})). With a server that had stopped to answer, `cnn` trained at
        {cost['median_ratio_of_throughput']:.3f} times its speed without tracking, and a row of
        metrics took {cost['microseconds_a_row']['median']:.0f} microseconds
        ([results](../{speed}): {cost['environment']['cpu_count']} CPU cores, Python
        {cost['environment']['python']}, JAX {cost['environment']['packages']['jax']}).""")


def served():
    """Returns a table of how fast `serve` answers, beside other servers."""
    first = next(iter(serving.read().values()))
    versions = first['versions']
    ratios = {
        (connections, name): f'{serving.ratio(connections, name):.2f}'
        for connections in (8, 64)
        for name in (serving.PLAIN, serving.LITSERVE)
    }
    text = _paragraph(f"""
        With 8 connections `serve` answers {ratios[8, serving.PLAIN]} times as many images as the
        plain handler and {ratios[8, serving.LITSERVE]} times as many as LitServe; with 64
        connections, {ratios[64, serving.PLAIN]} and {ratios[64, serving.LITSERVE]} times. `cnn`,
        PNG files of 28x28 pixels, client and server on the same machine, in alternation; medians
        over {len(first['images_per_second'])} rounds. The plain handler decodes and computes one
        image in a thread of Starlette's pool; LitServe takes images in JSON, in batches of up to 64
        ([results](../experiments/benchmarks/results/serving.jsonl): {first['processor']},
        {first['cpu_count']} cores, Python {first['python']}, JAX {versions['jax']}, LitServe
        {versions['litserve']}).""")
    return f'{serving.table()}\n\n{text}'


def bad_requests():
    """Returns a paragraph about the bad requests that a server got."""
    record = [each for each in _read('tests/stress/results.jsonl') if 'bad_requests' in each][-1]
    statuses = ', '.join(
        f'{count:,} with {status}' for status, count in record['statuses'].items() if status != '0'
    )
    return _paragraph(f"""
        Of {record['bad_requests']:,} random requests, most of them bad (damaged images, bombs,
        slow bodies, wrong lengths, odd HTTP), {record['faults']} did harm or got a wrong answer.
        {statuses} were answered; {record['statuses'].get('0', 0):,} were not, because the client
        had broken the connection. After each fifth of them the server had
        {', '.join(map(str, record['mebibytes']))} MiB of memory
        ([results](../tests/stress/results.jsonl), `python -m tests.stress.requests`).""")


# -------------------------------------------------------------------------------------- speedrun
def rungs():
    """Returns what is trained on each rung of the speedrun for a GPU, and what was reached."""
    lines = [
        '| rung | network | epochs | accuracy, mean | s a seed, median | seeds | hardware |',
        '|---|---|---:|---:|---:|---:|---|',
    ]
    for name in speedrun.RUNGS:
        if name == 'cpu90':
            continue
        config = speedrun.get_config(name)
        network = ', '.join(map(str, config.model.widths))
        if config.model.depth == 3:
            network += ', three convolutions a block, residual'
        path = ROOT / SPEEDRUN / f'{name}.jsonl'
        reached = 'not run | | |'
        if path.is_file():
            records = _read(path)
            accuracy = statistics.mean(record['accuracy'] for record in records)
            seconds = statistics.median(record['seconds'] for record in records)
            hardware = f'{records[0]["hardware"]}, {records[0]["cpu_count"]} CPU cores'
            reached = f'{accuracy:.4f} | {seconds:.3g} | {len(records)} | {hardware}'
        lines.append(f'| `{name}` | {network} | {config.train.epochs:g} | {reached} |')
    return '\n'.join(lines)


def speedrun_on_cpu():
    """Returns accuracy and time of the rung cpu90 here and in PyTorch."""
    lines = [
        '| | accuracy, mean | s to the end of the run, median | spread |',
        '|---|---:|---:|---:|',
    ]
    for framework, name in (('jax', 'JAX'), ('torch', 'PyTorch, eager')):
        records = _cpu90(framework)
        seconds = [record['seconds'] for record in records]
        accuracy = statistics.mean(record['accuracy'] for record in records)
        lines.append(
            f'| {name} | {accuracy:.4f} | {statistics.median(seconds):.1f} '
            f'| {min(seconds):.1f}-{max(seconds):.1f} |'
        )
    return '\n'.join(lines)


def speedrun_ratio():
    """Returns how long the rung cpu90 takes, compared with PyTorch, and on which machine."""
    pairs = list(zip(_cpu90('jax'), _cpu90('torch'), strict=True))
    ratios = [ours['seconds'] / theirs['seconds'] for ours, theirs in pairs]
    first, versions = pairs[0][0], pairs[0][0]['versions']
    return _paragraph(f"""
        {len(pairs)} seeds, in alternation: our run takes {statistics.median(ratios):.2f} times as
        long (median over seeds; {min(ratios):.2f} to {max(ratios):.2f}).
        [results/cpu90.jsonl](results/cpu90.jsonl): {first['hardware']}, {first['cpu_count']} cores,
        Python {versions['python']}, JAX {versions['jax']}, PyTorch {versions['torch']}. PyTorch's
        clock starts after the initial parameters are made.""")


def _cpu90(framework):
    return [each for each in _read(f'{SPEEDRUN}/cpu90.jsonl') if each['framework'] == framework]


def sweep_workers():
    """Returns what two workers of a sweep gain on a CPU."""
    records = {record['workers']: record for record in _read(SWEEPS)}
    one, two = (records[count]['runs_an_hour'] for count in (1, 2))
    first = records[1]
    return _paragraph(f"""
        On a CPU the default is one worker, because one training uses all cores: on
        {first['cpu_count']} cores, {first['seeds']} trainings of `{first['config']}` of
        {first['epochs']:g} epochs each come to {one:.0f} runs an hour with one worker and to
        {two:.0f} with two, {two / one:.2f} times as many (median of {len(first['seconds'])} sweeps
        each, in turns, while the load of the machine was {first['load']:.0f};
        [results](../{SWEEPS})).""")


BLOCKS = {
    'evaluate': lambda: finished('evaluate'),
    'evaluate temperature': lambda: finished('temperature', 'logits'),
    'evaluate views': views,
    'evaluate compare': lambda: finished('compare'),
    'report': report_of_optimizers,
    'transcript': transcript,
    'networks': networks,
    'float32 and bfloat16': number_types,
    'libraries': libraries,
    'libraries in short': libraries_in_short,
    'other sizes': other_sizes,
    'speed of bfloat16': bfloat16,
    'ratios': lambda: training.ratio_table(training.read()[0]),
    'training in detail': lambda: training.detailed_table(training.read()[0]),
    'time to accuracy': lambda: training.race_table(training.read()[1]),
    'versions of Python': versions.report,
    'start': start,
    'checkpoints': checkpoints,
    'folder': folder,
    'splits': splits,
    'near_duplicates': near_duplicates,
    'modes': modes,
    'inference': inference,
    'sweep workers': sweep_workers,
    'serving': served,
    'bad requests': bad_requests,
    'kills': kills,
    'tracking': tracking,
    'together': together,
    'rungs': rungs,
    'speedrun on a CPU': speedrun_on_cpu,
    'speedrun against PyTorch': speedrun_ratio,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='change nothing')
    args = parser.parse_args()
    if not args.check:
        write()
    elif outdated := [str(path.relative_to(ROOT)) for path, _ in _updated()]:
        sys.exit(f'out of date: {", ".join(outdated)}; run python -m experiments.pages')


if __name__ == '__main__':
    main()
