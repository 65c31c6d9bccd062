"""Sources: random access to the examples of a data set; one file per kind."""
