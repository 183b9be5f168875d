"""Answering requests over HTTP with a trained model."""
