"""Learning: losses, steps, metrics, schedules and optimizers, all pure functions."""
