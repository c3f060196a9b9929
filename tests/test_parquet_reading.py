"""Reading whole Parquet files: the rows, and that nothing of it outlives the call."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from curate.storage import Place
from curate.tables import parquet_bytes, parquet_table, read_parquet

TABLE = pa.table(
    {"id": ["a", "b"], "scores": [[1.0, 2.0], None], "user": pa.array([[("k", "v")], []], pa.map_("string", "string"))}
)


def test_reads_back_what_was_written(tmp_path):
    data = parquet_bytes(TABLE)
    (tmp_path / "rows.parquet").write_bytes(data)
    assert read_parquet(Place(str(tmp_path / "rows.parquet"))).equals(TABLE)
    assert parquet_table(data, ["id"]).equals(TABLE.select(["id"]))


def test_other_bytes_are_an_error():
    with pytest.raises(pa.ArrowInvalid):
        parquet_table(b"not a table at all")


def test_no_background_thread_holds_the_input(tmp_path):
    """pyarrow's dataset readers let go of Python objects in threads of their own; at the end of the interpreter that
    aborted about one command of ten (`curate verify` ended with status 134 after saying that all is well)."""
    (tmp_path / "rows.parquet").write_bytes(parquet_bytes(TABLE))
    code = (
        "import sys\n"
        "from curate.storage import Place\n"
        "from curate.tables import read_parquet\n"
        f"table = read_parquet(Place({str(tmp_path / 'rows.parquet')!r}))\n"
        "print(table.num_rows, 'pyarrow.dataset' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
