"""Predicting image files: from names to rows, and pictures that explain them."""
