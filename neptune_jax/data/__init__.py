"""Data: from the `data` and `augment` groups of a config to batches on the devices.

The way of a batch, one file for each station:

    sources/        where images come from; each kind ends as a prepared tfds data set
    clean.py        which images are left out: duplicates; what was changed, in a report
    splits.py       which images train, validate and test; folds and subsets
    standardize.py  shift and scale of the pixels, from the training split
    dataset.py      `load`, which does the above and returns a Dataset
    batches.py      which examples make up the batch of a step
    feed.py         how batches get to the devices: from device memory, host memory or files
    augment.py      random changes of a training batch, inside the compiled step

Start with `dataset.load`.
"""
