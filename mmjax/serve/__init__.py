"""A small web page to search a folder of images, classify them, and show attention maps."""
