"""Process-level code: the command line, joining other processes, signals, hanging steps."""
