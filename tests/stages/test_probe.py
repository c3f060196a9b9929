from fractions import Fraction

import pytest

from curate.errors import NotMediaError
from curate.records import Cell, Outcome, SourceFacts
from curate.stage import SourceFile
from curate.stages.probe import Probe, ProbeConfig
from curate.tables import cells_table
from curate.testing.footage import moving_texture, write_video


def source(path) -> SourceFile:
    return SourceFile(str(path), path.name, "digest", path.stat().st_size)


def test_columns_are_the_facts():
    assert [column.name for column in Probe.columns] == list(SourceFacts.__dataclass_fields__)
    assert all(column.doc for column in Probe.columns)


def test_facts_survive_the_table(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_texture(20, 96, 54, (2, 0)), Fraction(30000, 1001), gop=5)
    stage = Probe(ProbeConfig())
    facts = stage.probe(source(path))
    table = cells_table(stage, [Cell("digest", Outcome.OK, facts.to_cell(), 0.1)], host="h", run_id="r")
    assert SourceFacts.from_cell(table.to_pylist()[0]) == facts
    assert facts.rate == "30000/1001"


def test_what_is_no_media_is_an_input_error(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(NotMediaError):
        Probe(ProbeConfig()).probe(source(path))
