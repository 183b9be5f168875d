"""Drivers: how a step runs on devices, by jit, pmap or shard_map.

Under jit a step sees the global batch, and XLA divides the work. Under pmap and shard_map a step
sees its device's share of the batch and averages over `axis_name` itself. With each of them, state,
data and results are plain arrays that are replicated over the mesh: no axis of devices is added.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from neptune_jax.devices import backend, compiling
from neptune_jax.errors import UserError, check_choice

PyTree = Any

_AXIS = 'device'

# Excludes operations that add in an unspecified order, and the choice of algorithms by timing.
_DETERMINISTIC = {'xla_gpu_deterministic_ops': True}


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The driver that runs the steps, and its devices."""

    driver: str  # 'jit', 'pmap' or 'shard_map'
    mesh: Mesh
    sync_batch_norm: bool = True  # False: per-device batch statistics
    deterministic: bool = False  # the same bits in each run on a GPU too
    ahead_of_time: bool = True  # compile once, before the first step

    @property
    def devices(self) -> list[jax.Device]:
        """The devices of all processes."""
        return self.mesh.devices.tolist()

    @property
    def num_devices(self) -> int:
        """The number of devices of all processes."""
        return self.mesh.size

    @property
    def axis_name(self) -> str | None:
        """The axis that a step averages over, or None if it sees the global batch."""
        return None if self.driver == 'jit' and self.sync_batch_norm else _AXIS

    @property
    def batch_norm_axis(self) -> str | None:
        """The axis that batch normalisation averages over.

        None if it need not: a step sees the global batch, or batch statistics are per device.
        """
        return self.axis_name if self.sync_batch_norm else None

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of arrays that are the same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, tree: PyTree) -> PyTree:
        """Places a pytree of arrays, the same in every process, on every device."""
        return jax.tree.map(lambda leaf: self._place(leaf, self.replicated), tree)

    def abstract(self, tree: PyTree) -> PyTree:
        """Returns the shapes, types and placement that `replicate` gives a pytree of arrays."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            tree,
        )

    def shard(self, array: np.ndarray) -> jax.Array:
        """Divides this process's share of a batch over its devices."""
        if self.driver == 'pmap':
            devices = self.num_devices // jax.process_count()
            array = array.reshape(devices, -1, *array.shape[1:])
        return self._place(array, NamedSharding(self.mesh, PartitionSpec(_AXIS)))

    def _place(self, array, sharding):
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        with jax.transfer_guard('allow'):  # as explicit as device_put
            return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    def compile(
        self, step: Callable, *args: PyTree, sharded: int, donate: Sequence[int] = ()
    ) -> Callable:
        """Compiles `step` for the shapes and placements of `args`.

        Args:
            step: a pure function. Its results must be equal on all devices.
            *args: arguments like those it will get, already placed, or their `abstract`.
            sharded: position of the argument that `shard` places; the others are replicated.
            donate: positions of the arguments whose memory the results may reuse.

        Returns:
            The compiled function. It refuses other shapes instead of compiling again.
        """
        split = [i == sharded for i in range(len(args))]
        if self.driver == 'pmap' and self.ahead_of_time:
            run = jax.pmap(
                step,
                axis_name=_AXIS,
                in_axes=tuple(0 if here else None for here in split),
                out_axes=None,
                donate_argnums=donate,
                devices=self.devices,
            )
        else:
            if self.driver in ('pmap', 'shard_map'):
                if self.driver == 'pmap':
                    # `jax.pmap` does the same, but it takes no options for the compiler.
                    step = _without_device_axis(step, sharded)
                whole, divided = PartitionSpec(), PartitionSpec(_AXIS)
                specs = tuple(divided if here else whole for here in split)
                # With check_vma, JAX would sum the gradients of replicated parameters over devices.
                step = jax.shard_map(
                    step,
                    mesh=self.mesh,
                    in_specs=specs,
                    out_specs=whole,
                    check_vma=False,
                )
            elif self.axis_name:
                step = self._map_over_shares(step, sharded, split)
            jit = jax.jit if self.ahead_of_time else compiling.jit
            run = jit(step, donate_argnums=donate, out_shardings=self.replicated)
        if not self.ahead_of_time:
            return run
        if self.driver == 'pmap' and jax.process_count() > 1:
            args = jax.tree.map(self._concrete, args)  # pmap lowers for concrete arrays only
        options = _DETERMINISTIC if self.deterministic else {}
        return compiling.compile_lowered(run.lower(*args), options)

    def _concrete(self, leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return self._place(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        return leaf

    def _map_over_shares(self, step, sharded, split):
        """Maps a step over the shares of the devices under jit, for per-device batch statistics."""

        def run(*args):
            args = list(args)
            args[sharded] = jax.tree.map(
                lambda leaf: leaf.reshape(self.num_devices, -1, *leaf.shape[1:]), args[sharded]
            )
            in_axes = tuple(0 if here else None for here in split)
            mapped = jax.vmap(step, in_axes, out_axes=None, axis_name=_AXIS, spmd_axis_name=_AXIS)
            return mapped(*args)

        return run


def _without_device_axis(step, sharded):
    """Takes the axis of one device off the argument `sharded` of a step."""

    def run(*args):
        args = list(args)
        args[sharded] = jax.tree.map(lambda leaf: leaf[0], args[sharded])
        return step(*args)

    return run


def create(config: ConfigDict, **options: Any) -> Parallel:
    """Returns the Parallel that the `parallel` group asks for.

    Args:
        config: the group.
        **options: further fields of Parallel.

    Raises:
        UserError: an unknown driver, or more devices than there are.
    """
    check_choice(config.driver, ('auto', 'jit', 'pmap', 'shard_map'), 'parallel.driver')
    devices = backend.devices()
    requested = config.num_devices
    if requested is not None:
        if not 1 <= requested <= len(devices):
            raise UserError(
                f'parallel.num_devices={requested}: there are {len(devices)} '
                f'({devices[0].device_kind})'
            )
        if jax.process_count() > 1 and requested != len(devices):
            raise UserError(
                f'parallel.num_devices={requested}: several processes use all of their '
                f'{len(devices)} devices; leave the field unset'
            )
        devices = devices[:requested]
    driver = config.driver
    if driver == 'auto':
        driver = 'jit' if len(devices) == 1 else 'pmap'
    return Parallel(driver, Mesh(devices, (_AXIS,)), config.sync_batch_norm, **options)


def check_divisible(parallel: Parallel, batch_size: int, field: str) -> None:
    """Raises UserError unless the devices can share a batch evenly."""
    if batch_size < 1 or batch_size % parallel.num_devices:
        raise UserError(
            f'{field}={batch_size} cannot be divided evenly over {parallel.num_devices} device(s); '
            'make it a multiple of that number'
        )
