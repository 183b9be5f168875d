"""The same training in each library, written as its documentation recommends, each in a process.

`training.py` starts `python -m experiments.benchmarks.contestants NAME NETWORK BATCH_SIZE FOLDER`
and writes lines to its standard input: the name of a method of Contestant and its arguments. The
process answers each with a line of JSON. It needs the library of its own contestant only.
"""

# The fields of the networks, as in configs/. A residual network has only a depth.
NETWORKS = {
    'cnn3': {'features': (32, 64, 128), 'kernel_size': 3, 'padding': 'SAME', 'hidden': ()},
    'simple_net': {'features': (6, 16), 'kernel_size': 5, 'padding': 'VALID', 'hidden': (256,)},
    'resnet20': {'depth': 20},
}
CLASSES = 10
LEARNING_RATE = 1e-3  # Adam's default in all of them

# The module and the class of each contestant.
CONTESTANTS = {
    'ours': ('ours', 'Ours'),
    'ours bfloat16': ('ours', 'OursBfloat16'),
    'flax': ('plain_flax', 'PlainFlax'),
    'torch': ('pytorch', 'Torch'),
    'torch channels last': ('pytorch', 'TorchChannelsLast'),
    'torch compile': ('pytorch', 'TorchCompile'),
    'torch bfloat16': ('pytorch', 'TorchBfloat16'),
    'torch compile bfloat16': ('pytorch', 'TorchCompileBfloat16'),
    'keras': ('keras_on_jax', 'Keras'),
}
