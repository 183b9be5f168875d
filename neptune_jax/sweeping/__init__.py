"""From the description of a sweep to its runs: trials, searches, worker processes."""
