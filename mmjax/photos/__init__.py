"""The default model for photographs: built from packages of PyPI, without training on images."""
