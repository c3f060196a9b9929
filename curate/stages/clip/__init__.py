"""OpenCLIP: where a clip's frames lie beside each other and beside sentences (paper App. C)."""

from curate.stages.clip.similarity import ClipSimilarity, SimilarityConfig
from curate.stages.clip.stage import Clip, ClipConfig

__all__ = ["Clip", "ClipConfig", "ClipSimilarity", "SimilarityConfig"]
