"""Image search: exact top-k, an on-disk index of a folder, and the command."""
