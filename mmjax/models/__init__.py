"""One file per system: its Linen module, its loss, its spec."""
