"""Decode, sample and encode video."""
