"""Servers that `experiments.benchmarks.serving` compares, and the client that asks them.

Each takes a run directory and a port, decodes with the same function, and computes with the same
program, compiled for the same batch sizes.
"""
