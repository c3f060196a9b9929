"""What is tried when a file cannot be read: without what is damaged; and once more when it killed its process."""

import os
import signal
from pathlib import Path

import pytest
from engine_kit import Luma, LumaConfig, StrideConfig, StrideCut, all_cells, run
from media_kit import damaged_packets, stamped_by_decoding

from curate.config import Config
from curate.engine.inline import InlineEngine
from curate.engine.pipeline import build_pipeline
from curate.engine.reading import SourceReader, SourceStages
from curate.errors import DecodeError, DecoderCrashError
from curate.isolation import Limits
from curate.media.decode import iter_frames
from curate.media.encode import EncodeOptions, extract_clip
from curate.media.facts import read_facts
from curate.query import cells_sql, connect
from curate.records import Clip, SourceFacts, Span
from curate.stage import SourceFile, Thumb
from curate.stages.cut import Cut, CutConfig
from curate.stages.probe import Probe
from curate.tables import Corpus, cell_schema
from curate.testing.footage import moving_texture, write_video

CODECS = {
    "h264.mp4": {"codec": "libx264", "options": {"bf": "2"}},
    "av1.mp4": {"codec": "libsvtav1"},
}
N, GOP, FPS = 300, 15, 30
WHOLE = {"min_len_s": 0, "max_len_s": 0}


@pytest.fixture(scope="module", params=CODECS)
def film(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / request.param
    write_video(path, moving_texture(N, 96, 54, (1, 0), 1), FPS, gop=GOP, **CODECS[request.param])
    return path


def whole_shots(**config):
    return build_pipeline([Probe(Config()), Cut(CutConfig.model_validate({**WHOLE, **config})), Luma(LumaConfig())])


def rows(corpus, pipe, stage):
    schema = cell_schema(stage)
    fingerprint = {s.name: f for _, s, f in pipe.stages()}[stage.name]
    con = connect()
    return con.sql(cells_sql(con, Corpus(str(corpus)), stage.name, fingerprint, schema)).to_arrow_table().to_pylist()


def test_what_lies_around_damage_is_kept_and_what_is_lost_is_said(film, tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    facts = read_facts(str(film))
    damaged_packets(film, bucket / film.name, [GOP * 10 + 5, GOP * 10 + 6])
    pipe = whole_shots()
    result, _ = run(tmp_path / "c", bucket, pipe)
    assert result.counts["inputs"] == {"ok": 1}
    (cut,) = rows(tmp_path / "c", pipe, pipe.cut)
    clips = sorted(all_cells(tmp_path / "c", pipe)["clips"], key=lambda row: row[3])
    assert len(clips) == cut["n_clips"] == 2
    (_, _, _, first, first_end, *_), (_, _, _, second, end, *_) = clips
    stamps = [frame.pts for frame in iter_frames(str(film), facts)]
    assert first == facts.start_pts and end == facts.end_pts
    assert second == stamps[GOP * 11]
    assert stamps[GOP * 10] <= first_end <= stamps[GOP * 10 + 5]
    assert {"damage"} == {clips[0][9], clips[1][8]}
    assert cut["damaged_s"] == pytest.approx((second - first_end) * float(facts.time_base_fraction), abs=0.05)


def test_views_beside_damage_are_those_of_the_sound_file(film, tmp_path):
    """The same spans, cut out of the file before it was damaged, give the same values."""
    sound, broken = tmp_path / "sound", tmp_path / "broken"
    for folder in (sound, broken):
        folder.mkdir()
    (sound / film.name).write_bytes(film.read_bytes())
    damaged_packets(film, broken / film.name, [GOP * 10 + 5])
    pipe = build_pipeline([Probe(Config()), StrideCut(StrideConfig(stride_s=0.5)), Luma(LumaConfig())])
    found = []
    for name, folder in (("a", sound), ("b", broken)):
        run(tmp_path / name, folder, pipe)
        spans = {row[0]: row[3:5] for row in all_cells(tmp_path / name, pipe)["clips"]}
        found.append({spans[key]: mean for key, mean, *_ in all_cells(tmp_path / name, pipe)["luma"]})
    common = found[0].keys() & found[1].keys()
    assert len(common) > 15
    assert {span: found[1][span] for span in common} == {span: found[0][span] for span in common}


def test_a_stage_added_later_sees_the_clips_around_damage_and_they_can_be_cut_out(film, tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    damaged_packets(film, bucket / film.name, [GOP * 10 + 5, GOP * 10 + 6])
    cut = StrideCut(StrideConfig(stride_s=0.5))
    first = build_pipeline([Probe(Config()), cut, Luma(LumaConfig())])
    later = build_pipeline([Probe(Config()), cut, Luma(LumaConfig(gain=2.0))])
    for pipe in (first, later):
        run(tmp_path / "c", bucket, pipe)
    once, twice = (
        {key: mean for key, mean, *_ in all_cells(tmp_path / "c", pipe)["luma"] if mean is not None}
        for pipe in (first, later)
    )  # the piece before the damage may be too short for a view
    assert len(once) > 15 and twice == pytest.approx({key: 2 * mean for key, mean in once.items()})
    (row,) = rows(tmp_path / "c", first, first.probe)
    facts = SourceFacts.from_cell(row)
    for clip in all_cells(tmp_path / "c", first)["clips"]:
        span = Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, Span(*clip[3:5]))
        assert extract_clip(str(bucket / film.name), facts, span, EncodeOptions(preset="ultrafast")).n_frames > 0


@pytest.mark.parametrize(("start", "end"), [(140, 180), (150, 157), (156, 175), (100, 299)])
def test_a_span_with_damage_in_it_is_an_error_however_it_is_read(film, tmp_path, start, end):
    path = tmp_path / film.name
    facts = read_facts(str(film))
    damaged_packets(film, path, [GOP * 10 + 3])
    stamps = [frame.pts for frame in iter_frames(str(film), facts)]
    for salvage in (False, True):
        with pytest.raises(DecodeError):
            list(iter_frames(str(path), facts, start_pts=stamps[start], end_pts=stamps[end], salvage=salvage))
    sound = [frame.pts for frame in iter_frames(str(film), facts, start_pts=stamps[165], end_pts=stamps[200])]
    found = iter_frames(str(path), facts, start_pts=stamps[165], end_pts=stamps[200], salvage=True)
    assert [frame.pts for frame in found] == sound


@pytest.mark.parametrize("number", [281, 284, 287])
def test_damage_at_the_end_ends_the_last_clip(tmp_path, number):
    """Frames that were skipped before the damage say nothing of what lies behind it."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    sound = tmp_path / "a.mp4"
    options = {"bf": "3", "x264-params": "b-adapt=0:scenecut=0"}
    write_video(sound, moving_texture(N, 96, 54, (1, 0), 1), FPS, gop=60, codec="libx264", options=options)
    damaged_packets(sound, bucket / "a.mp4", [number])
    pipe = whole_shots()
    run(tmp_path / "c", bucket, pipe)
    facts = read_facts(str(sound))
    (clip,) = all_cells(tmp_path / "c", pipe)["clips"]
    (cut,) = rows(tmp_path / "c", pipe, pipe.cut)
    assert clip[9] == "damage" and clip[4] < facts.end_pts
    left_out_s = (facts.end_pts - clip[4]) * float(facts.time_base_fraction)
    assert cut["damaged_s"] == pytest.approx(left_out_s, abs=0.01)


def test_with_too_much_damage_a_source_fails_with_its_first_reason(film, tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    damaged_packets(film, bucket / film.name, [GOP * k + 3 for k in (5, 8, 11, 14)])
    pipe = whole_shots()
    result, _ = run(tmp_path / "c", bucket, pipe)
    assert result.counts["inputs"] == {"failed": 1}
    (cut,) = rows(tmp_path / "c", pipe, pipe.cut)
    assert cut["error_class"] == "DecodeError" and "cannot be decoded" in cut["error_message"]
    assert all_cells(tmp_path / "c", pipe)["clips"] == []


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.ivf", "libvpx-vp9")])
def test_a_file_that_lost_its_last_seconds_keeps_the_rest(tmp_path, name, codec):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    path = bucket / name
    write_video(path, moving_texture(N, 96, 54, (1, 0), 1), FPS, gop=GOP, codec=codec)
    whole = read_facts(str(path))
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * 0.95)])
    pipe = whole_shots()
    result, _ = run(tmp_path / "c", bucket, pipe)
    assert result.counts["inputs"] == {"ok": 1}
    (clip,) = all_cells(tmp_path / "c", pipe)["clips"]
    assert 0.9 * whole.end_pts < clip[4] < whole.end_pts


def test_a_file_that_lost_much_of_what_it_declares_fails(tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    path = bucket / "a.mkv"
    write_video(path, moving_texture(N, 96, 54, (1, 0), 1), FPS, gop=GOP)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * 0.7)])
    result, _ = run(tmp_path / "c", bucket, whole_shots())
    assert result.counts["inputs"] == {"failed": 1}


def test_a_file_whose_frames_run_backwards_is_read_by_counting_them(tmp_path):
    """What muxing it anew would do, without a copy; a stage that is added later sees it in the same way."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    sound = tmp_path / "sound.mp4"
    write_video(sound, moving_texture(90, 96, 54, (1, 0), 1), FPS, gop=GOP, codec="libx264", options={"bf": "3"})
    stamped_by_decoding(sound, bucket / "a.mp4")
    pipe = build_pipeline([Probe(Config()), Cut(CutConfig.model_validate(WHOLE)), Luma(LumaConfig())])
    result, _ = run(tmp_path / "c", bucket, pipe)
    assert result.counts["inputs"] == {"ok": 1}
    (facts,) = rows(tmp_path / "c", pipe, pipe.probe)
    assert (facts["has_pts"], facts["rate"]) == (False, "30/1")
    assert 85 < facts["n_frames"] <= 90
    (clip,) = all_cells(tmp_path / "c", pipe)["clips"]
    assert clip[3:5] == (0, facts["n_frames"])
    more = build_pipeline([pipe.probe, pipe.cut, Luma(LumaConfig(gain=2.0))])
    run(tmp_path / "c", bucket, more)
    ((_, once, *_),), ((_, twice, *_),) = (all_cells(tmp_path / "c", p)["luma"] for p in (pipe, more))
    assert twice == pytest.approx(2 * once)


class Deadly(Probe):
    """Dies on files of one name."""

    def probe(self, source):
        if source.uri.endswith("b.mp4"):
            os.kill(os.getpid(), signal.SIGABRT)
        return super().probe(source)


def test_a_source_whose_probing_kills_its_process_twice_is_quarantined(tmp_path, neighbours):
    pipe = build_pipeline([Deadly(Config()), StrideCut(StrideConfig()), Luma(LumaConfig())])
    result, heard = run(tmp_path / "c", neighbours, pipe)
    assert result.counts["inputs"] == {"ok": 2, "failed": 1} and heard.deaths == []
    (failed,) = [row for row in rows(tmp_path / "c", pipe, pipe.probe) if row["outcome"] == "failed"]
    assert failed["error_class"] == "DecoderCrashError"
    assert failed["error_message"].startswith("the decoding process died (SIGABRT), twice: it is quarantined")


class HostileConfig(StrideConfig):
    note: str = ""
    width_px: int = 0
    deeds: int = 0
    way: str = "die"


class HostileCut(StrideCut):
    """Misbehaves at the 40th frame of sources of one width, as often as ``deeds`` says; counts in a file's time."""

    config_type = HostileConfig

    def detector(self, facts):
        made = super().detector(facts)
        if facts.width_px != self.config.width_px:
            return made
        return Hostile(made, self.config)


def deeds_done(note):
    return int(Path(note).stat().st_mtime)


class Hostile:
    def __init__(self, made, config):
        self._made = made
        self._config = config
        self._seen = 0

    def __getattr__(self, name):
        return getattr(self._made, name)

    def push(self, thumb: Thumb) -> list[Span]:
        self._seen += 1
        done = deeds_done(self._config.note)
        if self._seen == 40 and done < self._config.deeds:
            os.utime(self._config.note, (done + 1, done + 1))  # the decoding process may write no file
            if self._config.way == "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            while True:
                pass
        return self._made.push(thumb)


def hostile(tmp_path, deeds, way="die"):
    note = tmp_path / "note"
    note.touch()
    os.utime(note, (0, 0))
    config = HostileConfig(stride_s=1.0, note=str(note), width_px=96, deeds=deeds, way=way)
    return build_pipeline([Probe(Config()), HostileCut(config), Luma(LumaConfig())]), note


@pytest.fixture
def neighbours(tmp_path):
    """The second of three sources is the one that the hostile stage goes for."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    for name, width_px in (("a", 64), ("b", 96), ("c", 64)):
        write_video(bucket / f"{name}.mp4", moving_texture(75, width_px, 48, (1, 0), seed=ord(name)))
    return bucket


@pytest.mark.parametrize("way", ["die", "spin"])
def test_a_source_that_kills_its_process_twice_is_quarantined_and_its_neighbours_are_untouched(
    tmp_path, neighbours, way
):
    pipe, note = hostile(tmp_path, 1000, way)
    engine = InlineEngine(tmp_path, Limits(least_s=5.0, s_per_megapixel=0.0))
    result, heard = run(tmp_path / "c", neighbours, pipe, engine)
    assert result.counts["inputs"] == {"ok": 2, "failed": 1}
    assert deeds_done(note) == 2 and heard.deaths == []
    (cut,) = [row for row in rows(tmp_path / "c", pipe, pipe.cut) if row["outcome"] == "failed"]
    assert cut["error_class"] == {"die": "DecoderCrashError", "spin": "DecodeLimitError"}[way]
    assert cut["error_message"].startswith(
        "the decoding process died (SIGSEGV), twice" if way == "die" else "took more"
    )
    assert "twice: it is quarantined" in cut["error_message"]
    again, _ = run(tmp_path / "c", neighbours, pipe, engine)
    assert again.counts["sources_read"] == 0 and deeds_done(note) == 2


def test_a_process_that_dies_once_changes_nothing(tmp_path, neighbours):
    pipe, note = hostile(tmp_path, 1)
    run(tmp_path / "c", neighbours, pipe)
    disturbed = all_cells(tmp_path / "c", pipe)
    assert deeds_done(note) == 1
    run(tmp_path / "d", neighbours, pipe)
    assert disturbed == all_cells(tmp_path / "d", pipe)
    assert {row[-2] for row in disturbed["cut"]} != {"failed"}


class Bomb:
    """Ends the process that unpickles it, as often as the time of a file says."""

    def __init__(self, note):
        self._note = note

    def __reduce__(self):
        return _explode, (self._note,)


def _explode(note):
    lives = deeds_done(note)
    if lives:
        os.utime(note, (lives - 1, lives - 1))
        os._exit(9)
    return {}


@pytest.mark.parametrize(("lives", "ends"), [(1, "ok"), (2, "failed")])
def test_known_clips_are_read_again_once(tmp_path, neighbours, lives, ends):
    path = neighbours / "a.mp4"
    facts = read_facts(str(path))
    file = SourceFile(str(path), str(path), "0" * 64, path.stat().st_size)
    clip = Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))
    note = tmp_path / "note"
    note.touch()
    os.utime(note, (lives, lives))
    reader = SourceReader()
    try:
        if ends == "ok":
            assert [found.clip_id for found, _, _ in reader.see(file, facts, [clip], Bomb(str(note)))] == [clip.clip_id]
        else:
            with pytest.raises(DecoderCrashError, match="exit status 9"):
                list(reader.see(file, facts, [clip], Bomb(str(note))))
    finally:
        reader.close()


def test_a_file_that_no_frame_decodes_from_fails_as_itself(tmp_path, film):
    path = tmp_path / film.name
    damaged_packets(film, path, range(N))
    facts = read_facts(str(film))
    file = SourceFile(str(path), str(path), "0" * 64, path.stat().st_size)
    reader = SourceReader()
    try:
        with pytest.raises(DecodeError):
            list(reader.cut(file, facts, SourceStages(Probe(Config()), Cut(CutConfig.model_validate(WHOLE)), {})))
    finally:
        reader.close()
