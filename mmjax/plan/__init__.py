"""Memory, time and cost of a config on chips that are not at hand."""
