"""Checkpoints of the TrainState: the latest ones, and the best by validation accuracy.

Process 0 reads and writes them. Beside the folder of each step lies a file of checksums. A
checkpoint that does not match them is damaged; a resuming run moves it away.
"""

import contextlib
import errno
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from neptune_jax.errors import UserError, is_out_of_memory, one_line
from neptune_jax.runs import reader


class Restored(NamedTuple):
    """The content of a checkpoint."""

    step: int
    state: Any  # a TrainState of NumPy arrays
    data: dict  # the JSON value that was saved with it


class Damaged(Exception):
    """A checkpoint that cannot be read, or does not match its checksums."""


@contextlib.contextmanager
def open_checkpoints(directory: str | Path, keep: int) -> Iterator['Checkpoints']:
    """Yields the Checkpoints in a directory: the latest `keep` and the best one are kept.

    Saves continue in the background. They are complete when the context ends.
    """
    if jax.process_index():
        yield Checkpoints()
        return
    directory = Path(directory).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(directory)
    process_0 = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix='process_0'
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
            [checkpoint_managers.LatestN(keep), _KeepBest(checkpoints.accuracies)]
        ),
        cleanup_tmp_directories=True,
        create=False,
        multiprocessing_options=process_0,
        async_options=ocp.AsyncOptions(post_finalization_callback=checkpoints.write_checksums),
    )
    handlers = {
        'state': ocp.StandardCheckpointHandler(multiprocessing_options=process_0),
        'data': ocp.JsonCheckpointHandler(multiprocessing_options=process_0),
    }
    manager = ocp.CheckpointManager(directory, options=options, item_handlers=handlers)
    checkpoints.manager = manager
    try:
        yield checkpoints
    finally:
        manager.close()


class Checkpoints:
    """The checkpoints of a run. In processes other than 0 there are none; saving does nothing."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path()  # not used without a manager
        self.manager: Any = None  # Orbax's
        # Validation accuracy by step, as in reader.best; the training loop fills it.
        self.accuracies: dict[int, float] = {}
        self._saving: int | None = None  # the step of the last save

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in increasing order."""
        return sorted(self.manager.all_steps()) if self.manager else []

    def wait(self) -> None:
        """Waits until the last save is complete."""
        if self.manager:
            self.manager.wait_until_finished()

    def save(self, step: int, state: Any, data: dict) -> None:
        """Starts to save `state`; its arrays may be donated as soon as this returns.

        Args:
            step: must be higher than that of every checkpoint so far.
            state: TrainState.
            data: a JSON value: what else is needed to continue the run or to use the parameters.

        Raises:
            OSError: the disk has no room. A save that fails half-way would fill it up.
        """
        if not self.manager:
            return
        self.wait()
        state = jax.device_get(state)
        check_room(self.directory, state)
        self._saving = step
        fields = dict(vars(state))
        if not fields['ema_batch_stats']:
            del fields['ema_batch_stats']  # as in the checkpoints of earlier versions
        items = {'state': ocp.args.StandardSave(fields), 'data': ocp.args.JsonSave(data)}
        self.manager.save(step, args=ocp.args.Composite(**items))

    def delete(self, step: int) -> None:
        """Deletes the checkpoint of a step, if there is one."""
        self.wait()
        if step in self.steps:
            self.manager.delete(step)
            _checksums_path(self.directory, step).unlink(missing_ok=True)

    def restore(
        self, step: int, abstract_state: Any, warn: Callable[[str], None] = print
    ) -> Restored:
        """Returns the Restored of `step`.

        Args:
            step: one of `steps`.
            abstract_state: a TrainState with the expected shapes and types.
            warn: called with a line of text if something takes the place of what is not there.

        Raises:
            Damaged: it cannot be read, or does not match its checksums.
            UserError: it belongs to another model.
        """
        verify(self.directory, step)
        try:
            metadata = self.manager.item_metadata(step)['state']
            expected = dict(vars(abstract_state))
            if 'ema_batch_stats' not in metadata:
                del expected['ema_batch_stats']
            check_shapes(f'the checkpoint of step {step}', metadata, expected)
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), expected)
            items = {'state': ocp.args.StandardRestore(like), 'data': ocp.args.JsonRestore()}
            restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        except UserError:
            raise
        except Exception as error:  # damaged files make the libraries below raise anything
            if is_out_of_memory(error):
                raise
            raise Damaged(one_line(error)) from error
        fields = restored.state
        if abstract_state.ema_batch_stats and 'ema_batch_stats' not in fields:
            # Earlier versions evaluated averaged parameters with these statistics.
            fields['ema_batch_stats'] = jax.tree.map(np.copy, fields['batch_stats'])
            warn(
                f'note: the checkpoint of step {step}, of an earlier version, has no batch '
                'statistics of the averaged parameters; those of the last step take their place'
            )
        return Restored(step, abstract_state.replace(**fields), restored.data)

    def restore_first(
        self, steps: Iterable[int], abstract_state: Any, warn: Callable[[str], None]
    ) -> Restored | None:
        """Returns the Restored of the first of `steps` that is not damaged, or None.

        Damaged checkpoints are moved to the folder `damaged` of the run directory.

        Args:
            steps: some of `self.steps`, in the order in which to try them.
            abstract_state: as for `restore`.
            warn: called with a line of text for each damaged checkpoint, and as for `restore`.

        Raises:
            UserError: a checkpoint belongs to another model.
        """
        for step in list(steps):
            try:
                return self.restore(step, abstract_state, warn)
            except Damaged as error:
                self._move_away(step, error, warn)
        return None

    def restore_best(self, abstract_state: Any, warn: Callable[[str], None]) -> Restored | None:
        """Returns the Restored of the best validated checkpoint that is not damaged, or None."""
        remaining = {step: self.accuracies[step] for step in self.steps if step in self.accuracies}
        while (step := reader.best(remaining)) is not None:
            restored = self.restore_first([step], abstract_state, warn)
            if restored:
                return restored
            del remaining[step]
        return None

    def _move_away(self, step, error, warn):
        damaged = self.directory.parent / 'damaged'
        damaged.mkdir(exist_ok=True)
        name = next(name for name in _numbered(str(step)) if not (damaged / name).exists())
        (self.directory / str(step)).rename(damaged / name)
        _checksums_path(self.directory, step).unlink(missing_ok=True)
        self.manager.reload()
        warn(f'warning: the checkpoint of step {step} is damaged ({error}); it is in {damaged} now')

    def write_checksums(self) -> None:
        """Writes the checksums of the last save, once it is complete; removes outdated ones."""
        folders = {}
        for folder in filter(Path.is_dir, self.directory.iterdir()):
            folders[folder.name.partition('.')[0]] = folder  # Orbax adds a suffix until it is done
        lines = [
            f'{_crc32(path):08x} {path.relative_to(folders[str(self._saving)])}\n'
            for path in sorted(folders[str(self._saving)].glob('*/**/*'))  # without Orbax's notes
            if path.is_file()
        ]
        _checksums_path(self.directory, self._saving).write_text(''.join(lines))
        for path in self.directory.glob('*.crc32'):
            if path.stem not in folders:
                path.unlink()


def check_room(directory: Path, state: Any) -> None:
    """Raises OSError if the disk has no room for a checkpoint of `state`."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if shutil.disk_usage(directory).free < 1.25 * size + 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def check_shapes(what: str, found: Any, expected: Any) -> None:
    """Raises UserError that names the arrays whose shapes differ between two pytrees."""
    found, expected = shapes(found), shapes(expected)
    differences = [
        f'{name}: {found.get(name, "absent")} there, {expected.get(name, "absent")} here'
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differences:
        raise UserError(
            f'{what} is of another model ({"; ".join(differences[:8])}); use the config it was '
            'written with, or another --workdir'
        )


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a pytree's arrays by path: {'params/Dense_0/bias': (10,)}."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class _KeepBest:
    """An Orbax preservation policy that keeps the best checkpoint."""

    def __init__(self, accuracies: dict[int, float]) -> None:
        self._accuracies = accuracies

    def should_preserve(self, checkpoints, *, context):
        validated = {
            checkpoint.step: self._accuracies[checkpoint.step]
            for checkpoint in checkpoints
            if checkpoint.step in self._accuracies
        }
        best = reader.best(validated)
        return [checkpoint.step == best for checkpoint in checkpoints]


def verify(directory: Path, step: int) -> None:
    """Raises Damaged unless the files of a checkpoint match its checksums, if it has any."""
    path = _checksums_path(directory, step)
    for line in path.read_text().splitlines() if path.is_file() else ():
        checksum, name = line.split(' ', 1)
        file = directory / str(step) / name
        if not file.is_file() or f'{_crc32(file):08x}' != checksum:
            raise Damaged(f'{name} is not as it was written')


def _checksums_path(directory, step):
    return directory / f'{step}.crc32'


def _crc32(path):
    return zlib.crc32(path.read_bytes())


def _numbered(name):
    yield name
    for i in range(1, 1000):
        yield f'{name}.{i}'
