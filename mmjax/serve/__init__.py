"""A small web page to search a folder of images, classify them, and see where a model looks."""
