"""The visual search engine: exact top-k, an index of a folder on disk, and the command."""
