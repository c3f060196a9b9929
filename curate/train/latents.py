"""Latents."""


class LatentReader:
    """x."""
