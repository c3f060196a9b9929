"""Optical flow, camera class, object motion, freezes, slideshows and repeated frames."""

from curate.stages.motion.stage import Motion, MotionConfig

__all__ = ["Motion", "MotionConfig"]
