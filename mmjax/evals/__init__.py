"""Evaluators, and the metric functions that they call."""
