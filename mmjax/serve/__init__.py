"""A small web page to search a folder of pictures, classify them, and see where a model looks."""
