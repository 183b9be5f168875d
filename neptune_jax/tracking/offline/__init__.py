"""Run directories from what the Neptune client left on a disk in its modes offline and async."""
