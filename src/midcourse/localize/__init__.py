"""The first-error benchmark: whether a model finds where a marked solution first goes wrong."""
