"""Published weights in: readers of their files, and rename tables onto our models."""
