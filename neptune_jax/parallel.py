"""How a step runs on devices: by jit, pmap or shard_map over one axis of them.

Under jit a step sees the global batch and XLA divides the work. Under pmap and shard_map it sees
its device's share and averages over `axis_name` itself. Either way state and data are plain arrays,
replicated over the mesh, neither stacked nor indexed by device, and so are all results.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from neptune_jax.errors import UserError, choose

_AXIS = 'device'

# No operation that adds in an order of chance, and no choice of algorithms by measured time.
_DETERMINISTIC = {'xla_gpu_deterministic_ops': True}


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Which driver runs the steps, and on which devices."""

    driver: str
    mesh: Mesh
    sync_batch_norm: bool = True  # batch statistics of the global batch, not of a device's share
    deterministic: bool = False  # the same bits each time also on a GPU
    ahead_of_time: bool = True  # compile once, before the first step

    @property
    def axis_name(self):
        """The axis a step averages over, or None where it sees the global batch."""
        return None if self.driver == 'jit' and self.sync_batch_norm else _AXIS

    @property
    def batch_norm_axis(self):
        """The axis that batch statistics are averaged over, or None where they are as they are."""
        return self.axis_name if self.sync_batch_norm else None

    @property
    def num_devices(self):
        return self.mesh.size

    @property
    def replicated(self):
        """The sharding of everything that is the same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, tree):
        """Places a pytree of arrays, the same in every process, on every device."""
        return jax.tree.map(lambda leaf: self._place(leaf, self.replicated), tree)

    def abstract(self, tree):
        """Returns the shapes, types and placement that `replicate` gives a pytree of arrays."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            tree,
        )

    def shard(self, array):
        """Divides this process's part of a batch, a NumPy array, over its devices."""
        if self.driver == 'pmap':
            devices = self.num_devices // jax.process_count()
            array = array.reshape(devices, -1, *array.shape[1:])
        return self._place(array, NamedSharding(self.mesh, PartitionSpec(_AXIS)))

    def _place(self, array, sharding):
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        with jax.transfer_guard('allow'):  # as explicit as device_put
            return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    def compile(self, step, *args, sharded, donate=()):
        """Compiles `step` for the shapes and placements of `args`.

        Args:
            step: a pure function; its results must be equal on all devices.
            *args: arguments of the kind it will get, already placed, or their `abstract`.
            sharded: the position of the argument that `shard` has placed; the others are
                replicated.
            donate: positions of the arguments whose memory the results may take.

        Returns:
            The compiled function. It refuses other shapes instead of compiling again.
        """
        split = [i == sharded for i in range(len(args))]
        if self.driver == 'pmap':
            run = jax.pmap(
                step,
                axis_name=_AXIS,
                in_axes=tuple(0 if here else None for here in split),
                out_axes=None,
                donate_argnums=donate,
                devices=self.mesh.devices.tolist(),
            )
        else:
            if self.driver == 'shard_map':
                whole, divided = PartitionSpec(), PartitionSpec(_AXIS)
                specs = tuple(divided if here else whole for here in split)
                # With check_vma, gradients of replicated parameters would come summed already.
                step = jax.shard_map(
                    step,
                    mesh=self.mesh,
                    in_specs=specs,
                    out_specs=whole,
                    check_vma=False,
                )
            elif self.axis_name:
                step = self._map_over_shares(step, sharded, split)
            run = jax.jit(step, donate_argnums=donate, out_shardings=self.replicated)
        if not self.ahead_of_time:
            return run
        if self.driver == 'pmap' and jax.process_count() > 1:
            args = jax.tree.map(self._concrete, args)  # pmap lowers for nothing else
        options = _DETERMINISTIC if self.deterministic else None
        return run.lower(*args).compile(compiler_options=options)

    def _concrete(self, leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return self._place(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        return leaf

    def _map_over_shares(self, step, sharded, split):
        """Makes jit see what each device would: for batch statistics that are not synchronised."""

        def run(*args):
            args = list(args)
            args[sharded] = jax.tree.map(
                lambda leaf: leaf.reshape(self.num_devices, -1, *leaf.shape[1:]), args[sharded]
            )
            in_axes = tuple(0 if here else None for here in split)
            mapped = jax.vmap(step, in_axes, out_axes=None, axis_name=_AXIS, spmd_axis_name=_AXIS)
            return mapped(*args)

        return run


def create(config, **options):
    """Returns the Parallel that the `parallel` group asks for.

    Args:
        config: the group.
        **options: further fields of Parallel.

    Raises:
        UserError: an unknown driver, or more devices than there are.
    """
    devices = jax.devices()
    asked = config.num_devices
    if asked is not None:
        if not 1 <= asked <= len(devices):
            raise UserError(
                f'parallel.num_devices={asked}: there are {len(devices)} ({devices[0].device_kind})'
            )
        if jax.process_count() > 1 and asked != len(devices):
            raise UserError(
                f'parallel.num_devices={asked}: several processes use all of their '
                f'{len(devices)} devices; leave the field unset'
            )
        devices = devices[:asked]
    drivers = {'auto': 'jit' if len(devices) == 1 else 'pmap'}
    drivers |= {'jit': 'jit', 'pmap': 'pmap', 'shard_map': 'shard_map'}
    driver = choose(drivers, config.driver, 'parallel.driver')
    return Parallel(driver, Mesh(devices, (_AXIS,)), config.sync_batch_norm, **options)


def check_divisible(parallel, batch_size, field):
    """Raises UserError unless the devices can share a batch evenly."""
    if batch_size < 1 or batch_size % parallel.num_devices:
        raise UserError(
            f'{field}={batch_size} cannot be divided evenly over {parallel.num_devices} device(s); '
            'make it a multiple of that number'
        )
