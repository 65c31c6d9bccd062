"""Sources: random access to the examples of a data set; a file for each kind."""
