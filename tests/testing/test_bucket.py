"""The sample bucket holds what it says, and making it again costs nothing. Its real footage is left out here."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.ingest.listing import list_inputs
from curate.ingest.spool import spooled
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.testing.bucket import EXPECTED, REAL, main, make_sample_bucket


@pytest.fixture
def bucket(sample_bucket: Path) -> Path:
    return sample_bucket


def test_what_is_there_is_left_alone(bucket: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bucket.iterdir()}
    paths = make_sample_bucket(bucket, real=False)
    assert {path: path.stat().st_mtime_ns for path in bucket.iterdir()} == before
    assert sorted(path.name for path in paths) == sorted(set(EXPECTED) - set(REAL))


def test_one_content_lies_under_two_names(bucket: Path) -> None:
    assert (bucket / "hard_cuts.mp4").read_bytes() == (bucket / "same_as_hard_cuts.mp4").read_bytes()


def test_every_file_ends_as_expected(bucket: Path, tmp_path: Path) -> None:
    for ref in list_inputs([str(bucket)]):
        name = Path(ref.uri).name
        expected = EXPECTED[name]
        if name == "same_as_hard_cuts.mp4":
            continue  # known by its digest alone
        if ref.cause:
            assert (expected.outcome, expected.cause) == ("skipped", ref.cause)
            continue
        try:
            with spooled(ref, tmp_path) as file:
                facts = read_facts(file.path)
                with iter_frames(file.path, facts) as frames:
                    assert sum(1 for _ in frames) == facts.n_frames
            ended = ("ok", "")
        except CurateError as error:
            ended = ("failed", type(error).__name__)
        assert (expected.outcome, expected.error_class) == ended, name


def test_the_hard_containers_are_what_they_say(bucket: Path) -> None:
    facts = {
        name: read_facts(str(bucket / name))
        for name, told in EXPECTED.items()
        if told.outcome == "ok" and name not in REAL
    }
    assert facts["variable_rate.mp4"].vfr and not facts["zoom.mp4"].vfr
    assert (facts["rotated_phone.mp4"].width_px, facts["rotated_phone.mp4"].height_px) == (180, 320)
    assert (facts["anamorphic.mp4"].width_px, facts["anamorphic.mp4"].height_px) == (320, 180)
    assert facts["hevc_10bit.mp4"].bit_depth == 10
    assert (facts["two_streams.mp4"].stream, facts["two_streams.mp4"].width_px) == (1, 320)
    assert {facts[name].codec for name in ("vp9.webm", "av1.mp4", "hevc_10bit.mp4")} == {"vp9", "av1", "hevc"}


def test_the_command_wants_one_folder(bucket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
