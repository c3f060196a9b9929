"""Watching a run while it goes on: its state in the corpus, metrics, a log for machines."""
