"""`curate latents`: what a stage is told, encoded once, where training finds it."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from cli_kit import curate
from clips_kit import Spec, make_set

from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.data.worker import Sources
from curate.train.encoders import Encoders
from curate.train.pipeline_folder import tiny_pipeline
from curate.train.recipe import load_train_recipe

CAPTION = "caption.template.caption"
QUICK = ["run.workers=0", "data.buckets.short_sides_px=[16]", "data.buckets.multiple_px=16", "data.batch=2"]
"""Smaller than the recipes' own size, and in this process."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Five clips of 24 frames, the last one without caption, of a film each."""
    specs = [Spec(frames=24, motion=float(at), captions={CAPTION: f"a clip, {at}"}) for at in range(4)]
    specs.append(Spec(frames=24, captions={CAPTION: None}))
    folder = str(tmp_path_factory.mktemp("set"))
    make_set(folder, specs, tmp_path_factory.mktemp("scratch"), per_shard=3)
    return folder


def latents(shards, place, stage="tiny-video", *args, encoders="tiny"):
    sets = [part for key in QUICK for part in ("--set", key)]
    return curate("latents", shards, "--recipe", stage, "--encoders", encoders, "--out", place, *sets, *args)


def folders(ended) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) (\S+): \d+ encoded", ended.out, re.MULTILINE))


def counts(ended) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"^(\w+) \S+: (\d+) encoded, (\d+) found, (\d+) without, (\d+) lost$", ended.out, re.MULTILINE)
    return {kind: tuple(map(int, numbers)) for kind, *numbers in found}


def test_a_text_stage_gets_video_and_captions_once(shards, tmp_path):
    ended = latents(shards, tmp_path, "tiny-video", "--dtype", "float32")
    assert (ended.status, ended.err) == (0, "")
    assert "4 clips in buckets 16x16x6" in ended.out  # the film that is held out too
    assert "1 clips left out: caption: none" in ended.out
    assert counts(ended) == {"video": (4, 0, 0, 0), "text": (4, 0, 0, 0)}
    again = latents(shards, tmp_path, "tiny-video", "--dtype", "float32")
    assert counts(again) == {"video": (0, 4, 0, 0), "text": (0, 4, 0, 0)}

    config = load_train_recipe("tiny-video", QUICK).data
    found, models = folders(ended), Encoders.tiny(32)
    sources = Sources(latents=found["video"], texts=found["text"])
    catalogue = Catalogue.read(ShardSet.open(Place(shards)), config)
    kept, shown = next(Loader(catalogue, config, sources=sources)), next(Loader(catalogue, config))
    assert kept.clip_ids == shown.clip_ids
    assert torch.allclose(kept.latents, models.codec.encode(shown.pixels()), atol=1e-4)
    assert torch.allclose(kept.text, models.text.encode(shown.captions), atol=1e-5)


def test_an_image_to_video_stage_gets_embeddings_of_its_frames(shards, tmp_path):
    ended = latents(shards, tmp_path, "tiny-image-to-video")
    assert counts(ended) == {"video": (5, 0, 0, 0), "image": (5, 0, 0, 0)}
    assert all(folder.endswith("-float16") for folder in folders(ended).values())
    config, found = load_train_recipe("tiny-image-to-video", QUICK).data, folders(ended)
    catalogue = Catalogue.read(ShardSet.open(Place(shards)), config)
    kept = next(Loader(catalogue, config, sources=Sources(latents=found["video"], images=found["image"])))
    shown = next(Loader(catalogue, config))
    wanted = Encoders.tiny(32).image.encode(shown.pixels()[:, 0])
    assert kept.image.shape == wanted.shape == (2, 1, 32)
    assert torch.allclose(kept.image.float(), wanted, atol=2e-3)


def test_processes_of_torchrun_share_the_shards(shards, tmp_path, monkeypatch):
    """As it says in their environment; together they encode all, none of them twice."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        ended = latents(shards, tmp_path, "tiny-image-to-video", "--what", "video")
        assert f"Share {rank + 1} of 2 complete" in ended.out
        found.append(counts(ended)["video"])
    assert found == [(3, 0, 0, 0), (2, 0, 0, 0)]
    monkeypatch.setenv("RANK", "2")
    ended = latents(shards, tmp_path, "tiny-image-to-video", "--what", "video")
    assert (ended.status, ended.err) == (2, "Error RANK, WORLD_SIZE: there is no rank 2 among 2. Start with torchrun\n")


def test_what_to_encode_can_be_said(shards, tmp_path):
    ended = latents(shards, tmp_path, "tiny-video", "--what", "text, image")
    assert sorted(counts(ended)) == ["image", "text"]


def test_a_run_that_was_stopped_goes_on(shards, tmp_path, monkeypatch):
    from curate.train.codecs import Codec

    left, real = iter(range(2)), Codec.encode

    def stopping(self, frames, chunk=16):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(self, frames, chunk)

    monkeypatch.setattr(Codec, "encode", stopping)
    ended = latents(shards, tmp_path)
    assert ended.status == 4
    assert "the same command goes on" in ended.err
    monkeypatch.undo()
    assert counts(latents(shards, tmp_path))["video"][0] in {3, 4}


def test_encoders_of_a_folder(shards, tmp_path):
    tiny_pipeline().save(tmp_path / "model")
    ended = latents(shards, tmp_path / "out", "tiny-image-to-video", encoders=tmp_path / "model")
    assert ended.status == 0
    tiny = latents(shards, tmp_path / "out", "tiny-image-to-video", "--what", "video")
    assert counts(tiny) == {"video": (0, 5, 0, 0)}  # the same codec
    lacking = latents(shards, tmp_path / "out", "tiny-video", encoders=tmp_path / "model")
    assert lacking.status == 2
    assert re.fullmatch(r"Error .*model: has no text_encoder/ and tokenizer/\. .*leave out text\n", lacking.err)


def test_a_clip_that_is_lost_is_named_and_the_rest_goes_on(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "set")
    catalogue = Catalogue.read(ShardSet.open(Place(str(folder))), load_train_recipe("tiny-image-to-video", QUICK).data)
    ref = catalogue.ref(0)
    path = folder / catalogue.entries[ref.shard].path
    data = bytearray(path.read_bytes())
    data[ref.offset_bytes : ref.offset_bytes + ref.video_bytes] = b"\xff" * ref.video_bytes
    path.write_bytes(data)
    ended = latents(folder, tmp_path / "out", "tiny-image-to-video", "--what", "video")
    assert ended.status == 0
    assert counts(ended) == {"video": (4, 0, 0, 1)}
    assert re.search(rf"^  lost {ref.clip_id} of \S+\.tar: DecodeError: ", ended.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--what", "vidio"], r"--what: nothing is called 'vidio', did you mean 'video'\?"),
        (["--recipe", "tiny-vido"], "tiny-vido"),
        (["--recipe", "tiny-image-to-video", "--what", "text"], "data.captions: the stage is told no captions"),
        (["--set", "data.batches=2"], "data.batches"),
        (["--encoders", "nowhere"], "nowhere: there is no such folder"),
        (["--set", "data.buckets.frames=[50]"], r"16x16x50 has 0; left out: bucket: shorter than 50 frames \(5\)"),
        (["--device", "cuda"], "sees 0 GPUs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(shards, tmp_path, monkeypatch, args, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended = latents(shards, tmp_path, "tiny-video", *args)
    assert ended.status == 2
    assert re.fullmatch(rf"Error .*{message}.*\n", ended.err)


def test_what_is_no_shard_set_is_said(tmp_path):
    ended = latents(tmp_path, tmp_path / "out")
    assert ended.status in {1, 2}
    assert re.fullmatch(r"Error .*\n", ended.err)
