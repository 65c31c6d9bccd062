"""One file per published model family: its config and its rename table."""
