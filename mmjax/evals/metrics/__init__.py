"""Metrics of generated text: pure functions of strings."""
