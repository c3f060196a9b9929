"""What the columns of a run mean, as the stages that computed them wrote it into their parts."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curate.query.parts import list_parts
from curate.query.run import RunTables
from curate.storage import client_errors, storage_error

_UNITS = {"clip.duration_s": "s", "clip.start_s": "s", "clip.end_s": "s", "source.size_bytes": "bytes"}


@dataclass(frozen=True, slots=True)
class Description:
    """Unit and meaning of a column; empty where nobody said."""

    unit: str = ""
    doc: str = ""


def described(tables: RunTables) -> dict[str, Description]:
    """Descriptions of columns by their full names; StorageError where a part cannot be read."""
    found = {name: Description(unit) for name, unit in _UNITS.items()}
    for stage in tables.stages:
        folder = tables.corpus.cells(stage.name, stage.fingerprint)
        for path in list_parts(folder)[:1]:
            try:
                with folder.fs.open(path, "rb") as file:
                    schema = pq.read_schema(file)
            except pa.ArrowException:
                continue  # a damaged part is the business of those who count
            except client_errors() as error:
                raise storage_error(error, folder.uri) from error
            for column in stage.columns:
                about = schema.field(column).metadata or {} if column in schema.names else {}
                told = Description(*(about.get(key, b"").decode("utf-8", "replace") for key in (b"unit", b"doc")))
                found[f"{stage.name}.{column}"] = told
                if stage.kind == "probe":
                    found[f"source.{column}"] = told
    return found
