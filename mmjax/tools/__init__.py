"""Tools that a model calls in the middle of an answer, and running them."""
