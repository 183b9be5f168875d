"""Inference: exact evaluation of a model, and predictions of a finished run."""
