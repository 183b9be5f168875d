"""How the tests' programs are compiled."""


def flags(devices, optimized=False):
    """Returns $XLA_FLAGS for a CPU that plays several devices.

    To optimise a program takes longer than to run it a few times: that is for long trainings.
    """
    flags = f'--xla_force_host_platform_device_count={devices}'
    return flags if optimized else f'{flags} --xla_backend_optimization_level=0'
