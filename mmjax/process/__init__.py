"""One process among others: the command line, joining, signals, hanging steps."""
