"""The files that a run keeps on disk, and how they are read back."""
