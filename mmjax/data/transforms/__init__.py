"""Transforms of examples and of batches."""
