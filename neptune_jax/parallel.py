"""How a step runs on devices: jit or pmap over one axis of devices, the state replicated.

Under jit a step sees the global batch and XLA divides the work. Under pmap it sees its device's
share and averages over `axis_name` itself. Either way state and data are plain arrays, replicated
over the mesh, neither stacked nor indexed by device, and so are all results.
"""

import dataclasses

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from neptune_jax.errors import UserError, choose

_AXIS = 'device'


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Which driver runs the steps, and on which devices."""

    driver: str
    mesh: Mesh

    @property
    def axis_name(self):
        """The axis a step averages over, or None where it sees the global batch."""
        return _AXIS if self.driver == 'pmap' else None

    @property
    def num_devices(self):
        return self.mesh.size

    def replicate(self, tree):
        """Places a pytree of arrays on every device."""
        return jax.device_put(tree, self.replicated)

    @property
    def replicated(self):
        """The sharding of everything that is the same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def abstract(self, tree):
        """Returns the shapes, types and placement that `replicate` gives a pytree of arrays."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            tree,
        )

    def shard(self, array):
        """Divides the leading axis of a NumPy array over the devices."""
        if self.driver == 'pmap':
            array = array.reshape(self.num_devices, -1, *array.shape[1:])
        return jax.device_put(array, NamedSharding(self.mesh, PartitionSpec(_AXIS)))

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
        if self.driver == 'pmap':
            in_axes = tuple(0 if i == sharded else None for i in range(len(args)))
            run = jax.pmap(
                step,
                axis_name=_AXIS,
                in_axes=in_axes,
                out_axes=None,
                donate_argnums=donate,
                devices=self.mesh.devices.tolist(),
            )
        else:
            run = jax.jit(step, donate_argnums=donate, out_shardings=self.replicated)
        return run.lower(*args).compile()


def create(config, devices=None):
    """Returns the Parallel that the `parallel` group asks for, on all local devices.

    Raises:
        UserError: an unknown driver.
    """
    devices = devices or jax.devices()
    drivers = {
        'auto': 'jit' if len(devices) == 1 else 'pmap',
        'jit': 'jit',
        'pmap': 'pmap',
    }
    return Parallel(choose(drivers, config.driver, 'parallel.driver'), Mesh(devices, (_AXIS,)))


def check_divisible(parallel, batch_size, field):
    """Raises UserError unless the devices can share a batch evenly."""
    if batch_size < 1 or batch_size % parallel.num_devices:
        raise UserError(
            f'{field}={batch_size} cannot be divided evenly over {parallel.num_devices} device(s); '
            'make it a multiple of that number'
        )
