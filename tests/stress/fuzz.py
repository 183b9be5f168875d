"""Gives `main` random fields, flags, config files and environments, up to the start of a training.

    python -m tests.stress.fuzz --cases=20000 --out=tests/stress/results.jsonl

A case ends well in two ways: a training would start now, or the exit status is 2, with one line on
stderr that starts with `error:`, and nothing written. All else is a fault: a traceback, a second
line, another status, a file left behind, a crash, more than a minute, gigabytes of memory.

Most cases run one after another in processes that have imported everything. The others, whose
environment counts before that, are commands of their own that train for one step.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.stress import fuzz_cases

ROOT = Path(__file__).parents[2]
SECONDS = 120  # a case may take, also where it has to prepare data on a busy machine
MEMORY = 6 * 2**30  # bytes that a case may ask for

# No case finds a network or a tracker, whatever it asks for.
OFFLINE = dict.fromkeys(('http_proxy', 'https_proxy', 'all_proxy'), 'http://127.0.0.1:9')


class Outcome(NamedTuple):
    """How a case ended."""

    end: str  # 'trains', 'exits' or 'crashes'
    status: int
    stdout: str
    stderr: str
    left: list[str]  # files that were not there before


def fault(outcome: Outcome) -> str:
    """Returns what is wrong with an outcome; '' if it is one of the two good ones."""
    lines = outcome.stderr.splitlines()
    if outcome.end == 'crashes':
        return 'crash'
    if 'Traceback' in outcome.stderr:
        return 'traceback'
    if outcome.end == 'trains' or outcome.status == 0:
        return ''
    if outcome.status != 2:
        return f'status {outcome.status}'
    if len(lines) != 1:
        return f'{len(lines)} lines'
    if not lines[0].startswith('error: ') or len(lines[0]) < 15:
        return 'no error line'
    return 'files left' if outcome.left else ''


class Started(BaseException):
    """Raised where a training would start."""


def _serve(connection, data):
    """Runs the cases that come through a connection; the main function of a worker process."""
    os.environ |= OFFLINE | {'TFDS_DATA_DIR': data, 'JAX_PLATFORMS': 'cpu'}
    os.environ['JAX_COMPILATION_CACHE_DIR'] = f'{data}/compiled'
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from neptune_jax import main
    from neptune_jax.devices import backend
    from neptune_jax.tracking import follow
    from neptune_jax.training import loop

    def start(*args):
        raise Started

    def refuse(*args):
        raise OSError('no process in a fuzz')

    loop._run, follow._start = start, refuse
    backend._check_xla_flags = lambda: None  # it copies a process that has not started a device yet
    sys.modules['__main__'] = main
    while case := connection.recv():
        with tempfile.TemporaryDirectory(dir=data) as folder:
            connection.send(_run_here(case, Path(folder), main))


def _run_here(case, folder, main):
    """Runs a case in this process, in a folder of its own."""
    from neptune_jax import cli

    before = _prepare(case, folder)
    environ, arguments = dict(os.environ), sys.argv
    os.environ |= case.environ
    os.chdir(folder)
    sys.argv = [main.__file__, *case.arguments]
    end, status = 'exits', 0
    output = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - closed below
    saved = [os.dup(1), os.dup(2)]
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_memory() + MEMORY, resource.RLIM_INFINITY))
    try:
        for number, file in enumerate(output):
            os.dup2(file.fileno(), number + 1)
        try:
            cli.run(main.main)
        except Started:
            end = 'trains'
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            status = 1
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number + 1)
            os.close(descriptor)
        os.chdir(ROOT)
        sys.argv = arguments
        os.environ.clear()
        os.environ |= environ
        _forget_flags()
    texts = []
    for file in output:
        with file:
            file.seek(0)
            texts.append(file.read().decode(errors='replace'))
    return Outcome(end, status, *texts, _left(folder, before))


def _forget_flags():
    from absl import flags

    for name in [name for name in flags.FLAGS if name.startswith('config.')]:
        delattr(flags.FLAGS, name)
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()


def _virtual_memory():
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    return pages * resource.getpagesize()


def _prepare(case, folder):
    for name, content in case.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return set(folder.rglob('*'))


def _left(folder, before):
    """Returns the files that a case has left, except prepared data, which later cases may use."""
    prepared = {path.parent for path in folder.rglob('dataset_info.json')}
    allowed = before | prepared.union(*(path.parents for path in prepared))
    after = {path for path in folder.rglob('*') if '__pycache__' not in path.parts}
    left = {path for path in after - allowed if prepared.isdisjoint(path.parents)}
    return sorted(str(path.relative_to(folder)) for path in left)


def _run_command(case, data):
    """Runs a case as a command of its own."""
    with tempfile.TemporaryDirectory(dir=data) as name:
        folder = Path(name)
        before = _prepare(case, folder)
        environ = os.environ | OFFLINE | {'TFDS_DATA_DIR': data, 'PYTHONPATH': str(ROOT)}
        environ |= {'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': f'{data}/compiled'}
        command = [sys.executable, '-m', 'neptune_jax.main', *case.arguments]
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                env=environ | case.environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors='replace',
                timeout=2 * SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Outcome('crashes', -1, '', f'more than {2 * SECONDS} s', [])
        end = 'trains' if result.returncode == 0 else 'exits'
        left = _left(folder, before)
        return Outcome(end, result.returncode, result.stdout, result.stderr, left)


class Worker:
    """A process that runs cases, and the next one if that has ended."""

    def __init__(self, data: str) -> None:
        self._data, self._process = data, None

    def run(self, case: 'fuzz_cases.Case') -> Outcome:
        """Returns how a case ends."""
        if case.is_command:
            return _run_command(case, self._data)
        if self._process is None:
            context = multiprocessing.get_context('spawn')
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._data), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._connection.send(case)
            if self._connection.poll(SECONDS):
                return self._connection.recv()
            reason = f'more than {SECONDS} s'
        except (EOFError, OSError):
            self._process.join()
            reason = f'the process has ended with status {self._process.exitcode}'
        self.close()
        return Outcome('crashes', -1, '', reason, [])

    def close(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process.close()
            self._process = None


def fuzz(cases: int, seed: int, jobs: int = 1, commands: float = 0.005) -> tuple[dict, list[str]]:
    """Runs cases; returns how many ended in which way, and a description of each fault.

    Args:
        cases: how many.
        seed: of all cases.
        jobs: worker processes.
        commands: the share of cases that are commands of their own.
    """
    from tests.stress import fuzz_cases  # imports JAX, for which a worker sets the environment

    total, faults = collections.Counter(), []
    data = tempfile.mkdtemp(prefix='fuzz')
    fuzz_cases.write_images(Path(data))

    def work(job):
        worker = Worker(data)
        for number in range(job, cases, jobs):
            case = fuzz_cases.draw(random.Random(f'{seed} {number}'), Path(data), commands)
            outcome = worker.run(case)
            wrong = fault(outcome)
            total.update([f'faults_{wrong}' if wrong else _good(outcome)])
            if number % 1000 == 999:
                print(f'{number + 1} cases: {json.dumps(total)}', flush=True)
            if wrong:
                text = f'{number}: {wrong}\n{case}\n{outcome.stderr[-3000:]}\n{outcome.left}'
                faults.append(text)
                print(text, flush=True)
        worker.close()

    try:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, range(jobs)))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    return dict(total), faults


def _good(outcome):
    return outcome.end if outcome.end == 'trains' or outcome.status == 0 else 'refused'


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--cases', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=2, help='processes at a time')
    parser.add_argument('--case', type=int, help='draws and runs this one alone')
    parser.add_argument('--out', help='a file of results, to which a line is added')
    args = parser.parse_args()
    if args.case is not None:
        _show(args.seed, args.case)
        return
    total, faults = fuzz(args.cases, args.seed, args.jobs)
    # Imported here because each case imports what it needs by itself.
    import jax

    from tests.stress import recording

    result = {'fuzz_cases': args.cases, 'faults': len(faults), **dict(sorted(total.items()))}
    recording.record(result | {'seed': args.seed, 'jax': jax.__version__}, args.out)
    sys.exit(bool(faults))


def _show(seed, number):
    from tests.stress import fuzz_cases

    with tempfile.TemporaryDirectory() as data, contextlib.closing(Worker(data)) as worker:
        fuzz_cases.write_images(Path(data))
        case = fuzz_cases.draw(random.Random(f'{seed} {number}'), Path(data), 0.005)
        outcome = worker.run(case)
    print(case, *outcome, fault(outcome) or 'good', sep='\n')


if __name__ == '__main__':
    main()
