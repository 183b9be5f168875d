"""From a config to batches: source -> split -> standardise -> batches. Start at `dataset.load`."""
