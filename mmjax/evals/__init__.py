"""Evaluators, and the pure metric functions that they call."""
