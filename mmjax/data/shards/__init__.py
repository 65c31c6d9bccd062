"""The index of webdataset shards: built from tar headers, memory-mapped."""
