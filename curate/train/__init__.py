"""The trainer: latent video diffusion in the paper's three stages, on exported shards.

Its modules import torch at their top, so nothing that must stay light imports them.
"""
