"""How the tests' programs are compiled."""


def flags(devices):
    """Returns $XLA_FLAGS for a CPU that plays several devices and leaves programs as they are.

    To optimise many small programs takes longer than to run them.
    """
    return f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
