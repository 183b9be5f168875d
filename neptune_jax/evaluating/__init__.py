"""Evaluating finished runs: on their own splits, on other images, and one beside another."""
