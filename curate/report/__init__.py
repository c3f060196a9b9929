"""A report of a selection that a person can look at."""
