"""Raw video to a curated, captioned, sharded training corpus."""

__version__ = "0.1.0"
