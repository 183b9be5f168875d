"""Checkpoints of the TrainState: the latest ones, and the best by validation accuracy.

Process 0 reads and writes them. Beside the folder of each step lie the checksums of its files:
what is damaged is found by them, and set aside.
"""

import contextlib
import errno
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from neptune_jax.errors import UserError


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any  # a TrainState of NumPy arrays
    data: dict  # the JSON value that was saved with it


class Damaged(Exception):
    """A checkpoint that cannot be read, or is not what was written."""


@contextlib.contextmanager
def open_checkpoints(directory, keep):
    """Yields the Checkpoints in a directory, of which the latest `keep` and the best are kept.

    Saves go on in the background; what was begun is finished when the context ends.
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
            [checkpoint_managers.LatestN(keep), _Best(checkpoints.accuracies)]
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
    """A run's checkpoints. In processes other than 0 there are none, and saving does nothing."""

    def __init__(self, directory=None):
        self.directory = directory
        self.manager = None  # Orbax's
        self.accuracies = {}  # by step, on the validation split: for the owner to fill
        self._saving = None  # the step of the last save

    @property
    def steps(self):
        """The steps of which there is a checkpoint, increasing."""
        return sorted(self.manager.all_steps()) if self.manager else []

    def wait(self):
        """Waits until the last save has been written."""
        if self.manager:
            self.manager.wait_until_finished()

    def save(self, step, state, data):
        """Starts to save `state`; the arrays may be donated as soon as this returns.

        Args:
            step: a whole number; must be higher than that of every checkpoint so far.
            state: TrainState.
            data: a dict for JSON, what else is needed to go on or to use the parameters.

        Raises:
            OSError: the disk has no room for it. To begin and fail would take what room there is.
        """
        if not self.manager:
            return
        self.wait()
        state = jax.device_get(state)
        check_room(self.directory, state)
        self._saving = step
        items = {'state': ocp.args.StandardSave(state), 'data': ocp.args.JsonSave(data)}
        self.manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step, abstract_state):
        """Returns the Restored of `step`.

        Args:
            step: one of `steps`.
            abstract_state: a TrainState of the shapes and types that it is to have.

        Raises:
            Damaged: it cannot be read, or is not what was written.
            UserError: it is of another model.
        """
        self._verify(step)
        try:
            metadata = self.manager.item_metadata(step)['state']
            check_shapes(f'the checkpoint of step {step}', metadata, abstract_state)
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), abstract_state)
            items = {'state': ocp.args.StandardRestore(like), 'data': ocp.args.JsonRestore()}
            restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        except UserError:
            raise
        except Exception as error:  # damaged bytes lead the readers below to exceptions of any kind
            raise Damaged(' '.join(str(error).split())[:200] or repr(error)) from error
        return Restored(step, restored.state, restored.data)

    def restore_first(self, steps, abstract_state, warn):
        """Returns the Restored of the first of some steps that is not damaged, or None.

        Damaged ones are moved to the folder `damaged` beside the checkpoints' own.

        Args:
            steps: some of `steps`, in the order in which to try.
            abstract_state: as for `restore`.
            warn: a function of a text, called for each one that is set aside.

        Raises:
            UserError: it is of another model.
        """
        for step in list(steps):
            try:
                return self.restore(step, abstract_state)
            except Damaged as error:
                self._set_aside(step, error, warn)
        return None

    def _set_aside(self, step, error, warn):
        damaged = self.directory.parent / 'damaged'
        damaged.mkdir(exist_ok=True)
        name = next(name for name in _names(str(step)) if not (damaged / name).exists())
        (self.directory / str(step)).rename(damaged / name)
        self._checksums(step).unlink(missing_ok=True)
        self.manager.reload()
        warn(f'warning: the checkpoint of step {step} is damaged ({error}); it is in {damaged} now')

    def write_checksums(self):
        """Writes those of the last save, whose files are all there; removes those of old ones."""
        folders = {}
        for folder in filter(Path.is_dir, self.directory.iterdir()):
            folders[folder.name.partition('.')[0]] = folder  # Orbax adds an ending until it is done
        lines = [
            f'{_crc32(path):08x} {path.relative_to(folders[str(self._saving)])}\n'
            for path in sorted(folders[str(self._saving)].glob('*/**/*'))  # less Orbax's own notes
            if path.is_file()
        ]
        self._checksums(self._saving).write_text(''.join(lines))
        for path in self.directory.glob('*.crc32'):
            if path.stem not in folders:
                path.unlink()

    def _verify(self, step):
        path = self._checksums(step)
        for line in path.read_text().splitlines() if path.is_file() else ():
            checksum, name = line.split(' ', 1)
            file = self.directory / str(step) / name
            if not file.is_file() or f'{_crc32(file):08x}' != checksum:
                raise Damaged(f'{name} is not as it was written')

    def _checksums(self, step):
        return self.directory / f'{step}.crc32'


class Weights(NamedTuple):
    """What a run has learned."""

    workdir: str
    step: int
    classes: list[str]
    arrays: dict  # 'params' and 'batch_stats', as NumPy arrays
    new: list = []  # paths of the arrays that have no use here: the head of other classes


def read_weights(workdir, step):
    """Returns the Weights in a run's checkpoint of a step; of averaged parameters, the averages.

    Raises:
        UserError: it cannot be read.
    """
    folder = Path(workdir).absolute() / 'checkpoints' / str(step)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            state = jax.tree.map(np.asarray, checkpointer.restore(folder / 'state'))
        data = json.loads((folder / 'data' / 'metadata').read_text())
    except Exception as error:  # damaged bytes lead the readers below to exceptions of any kind
        problem = ' '.join(str(error).split())[:200]
        raise UserError(f'{folder} cannot be read: {problem}') from error
    arrays = {'params': state.get('ema') or state['params']}
    arrays['batch_stats'] = state.get('batch_stats') or {}
    return Weights(str(workdir), step, data['classes'], arrays)


def check_room(directory, state):
    """Raises OSError where the disk has no room for a checkpoint of `state`."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if shutil.disk_usage(directory).free < 1.25 * size + 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def check_shapes(what, found, expected):
    """Raises UserError naming the arrays whose shapes differ between two trees."""
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


def shapes(tree):
    """Returns the shapes of a pytree's arrays, a dict by path: 'params/Dense_0/bias'."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class _Best:
    """An Orbax preservation policy: the step of the best accuracy, of equal ones the last."""

    def __init__(self, accuracies):
        self._accuracies = accuracies

    def should_preserve(self, checkpoints, *, context):
        known = [c.step for c in checkpoints if c.step in self._accuracies]
        best = max(known, key=lambda step: (self._accuracies[step], step), default=None)
        return [checkpoint.step == best for checkpoint in checkpoints]


def _crc32(path):
    return zlib.crc32(path.read_bytes())


def _names(name):
    yield name
    for i in range(1, 1000):
        yield f'{name}.{i}'
