"""What a run will take, before it starts: `curate plan` (docs/plan.md).

sources -> listing and facts of all (`survey`) -> a sample (`sample`) -> the real job on it -> what each source took
(`measure`) -> totals with their spread (`ratios`) -> a cluster's hours, the funnel, storage (`expect`) -> `Forecast`
"""

from curate.estimate.cluster import Cluster
from curate.estimate.forecast import Forecast
from curate.estimate.plan import PlanOptions, make_plan
from curate.estimate.ratios import Estimate
from curate.estimate.sample import SampleSize

__all__ = ["Cluster", "Estimate", "Forecast", "PlanOptions", "SampleSize", "make_plan"]
