"""Selection: one run's table -> a decision for every clip, with all reasons (DESIGN section 7)."""

from curate.select.config import Condition, DedupConfig, SelectConfig
from curate.select.funnel import ConditionCount, Counts, Funnel, Reason, Retention, Threshold, load_funnel
from curate.select.inputs import InputVerdict, input_verdicts
from curate.select.run import BucketOf, select

__all__ = [
    "BucketOf",
    "Condition",
    "ConditionCount",
    "Counts",
    "DedupConfig",
    "Funnel",
    "InputVerdict",
    "Reason",
    "Retention",
    "SelectConfig",
    "Threshold",
    "input_verdicts",
    "load_funnel",
    "select",
]
