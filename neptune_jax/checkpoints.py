"""Checkpoints of the TrainState: the latest ones, and the best by validation accuracy."""

import contextlib
import errno
import os
import shutil

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers


@contextlib.contextmanager
def open_manager(directory, keep):
    """Yields an Orbax CheckpointManager that keeps the latest `keep` and the best checkpoint.

    It saves in the background; what was begun is finished when the context ends.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics['accuracy'],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        ),
        cleanup_tmp_directories=True,
    )
    manager = ocp.CheckpointManager(directory.absolute(), options=options)
    try:
        yield manager
    finally:
        manager.close()


def save(manager, step, state, data, accuracy=None):
    """Starts to save `state`; the arrays may be donated as soon as this returns.

    Args:
        manager: from `open_manager`.
        step: a whole number; must be higher than that of every checkpoint so far.
        state: TrainState.
        data: a dict for JSON, what to know of the data to use the parameters: the classes and the
            standardisation.
        accuracy: on the validation split, where it was evaluated at this step.

    Raises:
        OSError: the disk has no room for it. To begin and fail would take what room there is.
    """
    manager.wait_until_finished()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if shutil.disk_usage(manager.directory).free < 1.25 * size + 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(manager.directory))
    metrics = None if accuracy is None else {'accuracy': accuracy}
    with jax.transfer_guard('allow'):  # Orbax copies to the host in its own way
        items = {'state': ocp.args.StandardSave(state), 'data': ocp.args.JsonSave(data)}
        manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)


def restore(manager, step, abstract_state):
    """Returns the state saved at `step`, and the dict `data` saved with it.

    Args:
        manager: from `open_manager`.
        step: a step that was saved and kept.
        abstract_state: a TrainState of the shapes, types and placement that it is to have.
    """
    items = {'state': ocp.args.StandardRestore(abstract_state), 'data': ocp.args.JsonRestore()}
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    return restored.state, restored.data
