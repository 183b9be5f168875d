"""Sending runs to trackers, by a process of its own that cannot hurt the training."""
