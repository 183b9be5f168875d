"""XLA flags for tests."""


def flags(devices: int, optimized: bool = False) -> str:
    """Returns $XLA_FLAGS for a CPU that appears as several devices.

    Args:
        devices: their number.
        optimized: whether XLA optimises programs. To optimise a program takes longer than to run
            it a few times; it pays for long trainings only.
    """
    flags = f'--xla_force_host_platform_device_count={devices}'
    return flags if optimized else f'{flags} --xla_backend_optimization_level=0'
