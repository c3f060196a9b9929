"""From a selection to shards: plan first, write each shard whole, put the finished set in place, index last."""

from curate.export.config import ExportConfig, ExportReport
from curate.export.run import export, plan_export

__all__ = ["ExportConfig", "ExportReport", "export", "plan_export"]
