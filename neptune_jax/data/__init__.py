"""From a config to batches: source -> cleaning -> split -> standardise -> batches -> augment.

Start at `dataset.load`.
"""
