"""The `text` stage: the share of the picture that written text covers, by one of two detectors."""

from curate.stages.text.stage import Text, TextConfig, covered_share

__all__ = ["Text", "TextConfig", "covered_share"]
