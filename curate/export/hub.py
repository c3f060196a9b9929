"""The head of a dataset card: what the `datasets` library, and the hub it comes from, read of a folder of shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import yaml

from curate.export.config import ExportConfig
from curate.export.plan import ExportPlan
from curate.export.provenance import BETWEEN_LICENCES
from curate.shards.index import ShardIndex
from curate.shards.writer import SIDECAR

_SIDECAR_ALONE = frozenset({"video_offset_bytes", "video_bytes"})
"""Columns of a sidecar that the JSON of a sample lacks."""

_HUB_NAMES = (
    "afl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsl-1.0 cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 gfdl gpl-2.0 gpl-3.0 lgpl-3.0 mit mpl-2.0 odbl "
    "odc-by pddl unlicense wtfpl"
)
_HUB_LICENCES = frozenset(_HUB_NAMES.split())
"""Names of licences that the hub knows, as far as footage comes under them."""

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")


def front_matter(name: str, plan: ExportPlan, config: ExportConfig, index: ShardIndex, licences: Sequence[str]) -> str:
    """The YAML between two rules. ``licences`` are all that clips of the set have, empty for none."""
    head: dict[str, Any] = {"pretty_name": name, **_licence(licences)}
    head["task_categories"] = [*(["text-to-video"] if config.caption else []), "image-to-video"]
    head["tags"] = ["video", "webdataset", "curate"]
    head["size_categories"] = [size_category(index.n_clips)]
    if index.shards:
        # One kind of file a folder: the library reads all configurations with the reader of the first.
        head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "*/*.tar"}]}]
        head["dataset_info"] = {"features": clip_features(plan.tasks[0].columns.schema)}
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=False, width=10**6)
    return f"---\n{text}---"


def size_category(n: int) -> str:
    """The hub's word for so many clips."""
    return _SIZES[min(max(len(str(n)) - 3, 0), len(_SIZES) - 1)]


def _licence(licences: Sequence[str]) -> dict[str, str]:
    """The field ``license``, where all clips have one and the same."""
    if len(licences) != 1 or not licences[0]:
        return {}
    name = re.sub(r"[^a-z0-9.]+", "-", licences[0].lower()).strip("-.")
    is_known = name in _HUB_LICENCES and BETWEEN_LICENCES not in licences[0]
    return {"license": name} if is_known else {"license": "other", "license_name": name[:96] or "other"}


def clip_features(columns: pa.Schema) -> list[dict[str, Any]]:
    """The types of a sample, which could not be told from the first few: there a value may be null."""
    own = [field for field in SIDECAR if field.name not in _SIDECAR_ALONE]
    facts = [_feature(field.name, field.type) for field in (*own, *columns)]
    return [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        {"name": "mp4", "dtype": "video"},
        {"name": "txt", "dtype": "string"},
        {"name": "json", "struct": facts},
    ]


def _feature(name: str, dtype: pa.DataType) -> dict[str, Any]:
    return {"name": name, **_kind(dtype)}


def _kind(dtype: pa.DataType) -> dict[str, Any]:
    """The type of a value that went through JSON, as the library writes it."""
    if pa.types.is_list(dtype):
        inner = _kind(dtype.value_type)
        return {"list": inner.get("dtype", inner)}
    if pa.types.is_struct(dtype):
        return {"struct": [_feature(field.name, field.type) for field in dtype]}
    if pa.types.is_boolean(dtype):
        return {"dtype": "bool"}
    if pa.types.is_integer(dtype):
        return {"dtype": str(dtype)}
    return {"dtype": "float64" if pa.types.is_floating(dtype) else "string"}
