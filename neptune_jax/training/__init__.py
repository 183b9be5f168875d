"""Training: the loop, its records, its compiled steps, and looking into a run."""
