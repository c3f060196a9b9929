"""An input never makes the program open another file or address: every attack through `curate run`, under watch."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import av
import pytest
from attacks_kit import ATTACKS, HARMLESS, Attack, follow, ground
from cli_kit import RECIPE, verdicts
from job_kit import do

from curate.errors import NoVideoStreamError
from curate.ingest.names import VIDEO_SUFFIXES
from curate.media.container import (
    AUDIO_DECODERS,
    AUDIO_DEMUXERS,
    VIDEO_DECODERS,
    VIDEO_DEMUXERS,
    is_readable,
    open_media,
)
from curate.media.facts import read_facts
from curate.recipe import parse_recipe
from curate.select.inputs import input_verdicts
from curate.tables import Corpus
from curate.testing.footage import moving_texture, write_video

WITH_SOUND = RECIPE.replace("preset: ultrafast", "preset: ultrafast, audio: true")


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    with ground(tmp_path_factory.mktemp("ground") / "g") as made:
        for attack in (*ATTACKS, *HARMLESS):
            attack.write(made, made.folder / attack.file)
        yield made


@pytest.fixture(scope="module")
def ended(at, tmp_path_factory):
    """(verdicts by file, names that were opened, visits to the port) of a whole job over all attacks."""
    out = tmp_path_factory.mktemp("of_attacks") / "corpus"
    at.opens.names(), at.port.visits()
    do([at.folder / attack.file for attack in (*ATTACKS, *HARMLESS)], out, parse_recipe(WITH_SOUND, "test"))
    return verdicts(out), at.opens.names(), at.port.visits()


def test_nothing_but_the_files_themselves_was_opened(ended):
    _, opened, visits = ended
    assert opened == {attack.file for attack in (*ATTACKS, *HARMLESS)}
    assert visits == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.file)
def test_an_attack_fails_with_its_reason(attack, ended):
    verdict, reason = ended[0][attack.file]
    assert verdict == "failed"
    assert attack.reason in reason


@pytest.mark.parametrize("attack", HARMLESS, ids=lambda attack: attack.file)
def test_a_video_that_names_others_is_read_without_them(attack, ended):
    assert ended[0][attack.file] == ("kept", "")


@pytest.mark.parametrize("attack", [a for a in (*ATTACKS, *HARMLESS) if a.control], ids=lambda attack: attack.file)
def test_the_watches_see_it_when_a_name_is_followed(attack: Attack, at):
    at.opens.names(), at.port.visits()
    follow(attack, at)
    others = at.opens.names() - {attack.file}
    assert others or at.port.visits()
    assert all(name.startswith("canary") for name in others)


def test_attacks_found_in_a_folder_and_in_a_tar_are_not_followed_either(at, tmp_path):
    tar = tmp_path / "attacks.tar"
    with tarfile.open(tar, "w") as archive:
        for attack in ATTACKS:
            archive.add(at.folder / attack.file, attack.file)
    folder = tmp_path / "bucket"
    folder.mkdir()
    for attack in ATTACKS:
        os.link(at.folder / attack.file, folder / attack.file)
    at.opens.names(), at.port.visits()
    do([folder, tar], tmp_path / "corpus", parse_recipe(RECIPE, "test"))
    found = list(input_verdicts(Corpus(str(tmp_path / "corpus")), "small"))
    assert len(found) == 2 * len(ATTACKS)
    assert {row.verdict for row in found} == {"failed", "skipped"}
    assert (at.opens.names(), at.port.visits()) == (set(), 0)


def test_lists_below_a_source_folder_are_no_lists(at, tmp_path):
    """Only a list that the user names is read; one among the inputs cannot bring others in."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name in ("more.txt", "more.csv", "more.list"):
        Path(folder / name).write_text(f"{at.secret}\n{at.url}/a.mp4\n")
    os.link(at.folder / "concat-file.mp4", folder / "concat-file.mp4")
    at.opens.names(), at.port.visits()
    do([folder], tmp_path / "corpus", parse_recipe(RECIPE, "test"))
    found = verdicts(tmp_path / "corpus")
    assert found.pop("concat-file.mp4")[0] == "failed"
    assert {verdict for verdict, _ in found.values()} == {"skipped"}
    assert (at.opens.names(), at.port.visits()) == (set(), 0)


def test_codecs_that_are_not_read_are_refused_by_name(tmp_path):
    """A game's codec in a common container: no decoder of it is opened, not even to look at the stream."""
    path = tmp_path / "game.avi"
    write_video(path, moving_texture(10, 96, 64, (1, 0), 1), codec="snow")
    with open_media(str(path)) as container:
        (stream,) = container.streams.video
        assert not is_readable(stream)
        assert stream.codec_context.pix_fmt is None
        with pytest.raises(ValueError, match="codec_whitelist"):
            next(container.decode(stream))
    with pytest.raises(NoVideoStreamError, match=r"found video \(snow\)"):
        read_facts(str(path))


def test_every_video_suffix_has_its_demuxer():
    """Names that are taken in folders, by the demuxer that FFmpeg has for them; the others are of raw streams."""
    raw = {"264": "h264", "265": "hevc", "h264": "h264", "h265": "hevc", "hevc": "hevc", "av1": "obu", "obu": "obu"}
    mpeg = {"m1v": "mpegvideo", "m2v": "mpegvideo", "mpe": "mpeg", "mpeg": "mpeg", "mpg": "mpeg", "vob": "mpeg"}
    mpeg |= dict.fromkeys(("m2t", "m2ts", "mts", "ts"), "mpegts")
    other = {"asf": "asf", "wmv": "asf", "avi": "avi", "divx": "avi", "dv": "dv", "flv": "flv", "ivf": "ivf"}
    other |= {"m4v": "mov", "mjpeg": "mjpeg", "mjpg": "mjpeg", "mkv": "matroska", "webm": "matroska", "mxf": "mxf"}
    other |= dict.fromkeys(("ogm", "ogv"), "ogg") | dict.fromkeys(("rm", "rmvb"), "rm") | {"y4m": "yuv4mpegpipe"}
    other |= dict.fromkeys(("3g2", "3gp", "f4v", "mov", "mp4", "qt"), "mov")
    wanted = {**raw, **mpeg, **other}
    assert {suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES} == set(wanted)
    assert set(wanted.values()) <= set(VIDEO_DEMUXERS.split(","))


def test_the_lists_name_what_this_build_has():
    assert [name for name in f"{VIDEO_DECODERS},{AUDIO_DECODERS}".split(",") if name not in av.codecs_available] == []
    demuxers = f"{VIDEO_DEMUXERS},{AUDIO_DEMUXERS}".split(",")
    assert [name for name in demuxers if name not in av.formats_available] == []
    followers = {"hls", "dash", "concat", "imf", "image2", "sdp", "rtsp", "rtp", "sap", "vobsub", "lavfi"}
    assert followers.isdisjoint(demuxers)
