"""CLIP's image half: equal to the library called directly, whatever else is in the batch."""

from __future__ import annotations

import json
import pickle
import socket
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from clip_kit import (
    KINDS,
    OPENAI_LIKE,
    SIGLIP_LIKE,
    add_open_clip,
    frames_of,
    kit_of_kinds,
    upstream_folder,
    write_open_clip,
)
from PIL import Image

from curate.errors import ConfigError, MissingModelError, ModelFileError
from curate.records import Outcome
from curate.stages.clip import Clip, ClipConfig
from curate.stages.clip.card import FRAMES
from curate.view import View


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    with kit_of_kinds(tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module", params=sorted(KINDS))
def stage(request, kit):
    made = Clip(ClipConfig(model=request.param))
    made.setup()
    return made


def frames_for(stage, seed, n=3):
    """n frames as the engine gives them: the short side as the view asks, 16:9."""
    px = stage.views()["ends"].short_side_px
    return frames_of(seed, n, px, px * 16 // 9)


def upstream(kit, name, frames):
    """What open_clip gives when called as its documentation says."""
    folder = upstream_folder(kit, name)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False)
    batch = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames])
    with torch.no_grad():
        return model.eval().encode_image(batch, normalize=True).numpy()


def item_of(clip_item, frames, pts=(0, 45000, 90000)):
    item = clip_item(views={"ends": frames})
    view = item.views["ends"]
    shown = View(view.frames, np.array(pts, np.int64), view.time_base, view.groups)
    return replace(item, views={"ends": shown})


def test_embeddings_are_those_of_the_library(stage, kit):
    frames = frames_for(stage, 1, 5)
    expected = upstream(kit, stage.config.model, frames)
    # A batch of five rounds otherwise than five of one: 1e-6 of vectors of length 1.
    np.testing.assert_allclose(stage.embed(frames), expected, atol=2e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_a_cell_holds_half_floats_of_first_middle_and_last(stage, kit, clip_item):
    frames = frames_for(stage, 2)
    (cell,) = stage.process([item_of(clip_item, frames)])
    expected = upstream(kit, stage.config.model, frames)
    for index, name in enumerate(FRAMES):
        assert cell.values[name].dtype == np.float16
        # Half floats below 1 lie at most 2**-12 off.
        np.testing.assert_allclose(cell.values[name].astype(np.float32), expected[index], atol=2**-12 + 2e-6)


def test_a_clip_gives_the_same_alone_in_a_batch_and_in_another_order(stage, clip_item):
    items = [item_of(clip_item, frames_for(stage, seed)) for seed in range(4)]
    alone = [stage.process([item])[0].values for item in items]
    together = [cell.values for cell in stage.process(items)]
    backwards = [cell.values for cell in stage.process(items[::-1])][::-1]
    for name in FRAMES:
        assert [v[name].tobytes() for v in alone] == [v[name].tobytes() for v in together]
        assert [v[name].tobytes() for v in alone] == [v[name].tobytes() for v in backwards]


def test_batches_of_a_fixed_shape_are_padded_and_cut(stage, kit, clip_item, monkeypatch):
    """The shape that a GPU runs: seven clips in batches of three, the last one padded."""
    monkeypatch.setattr(stage, "rows", 3)
    frames = frames_for(stage, 3, 7)
    items = [item_of(clip_item, frames[[number, number, number]]) for number in range(7)]
    found = [cell.values for cell in stage.process(items)]
    moved = [cell.values for cell in reversed(stage.process(items[::-1]))]
    firsts = np.stack([values["first"] for values in found])
    np.testing.assert_allclose(firsts, upstream(kit, stage.config.model, frames), atol=2e-3)  # half floats
    assert [values["last"].tobytes() for values in found] == [values["last"].tobytes() for values in moved]


def test_clips_of_all_aspects_share_a_batch_and_one_without_frames_fails_alone(stage, clip_item):
    px = stage.views()["ends"].short_side_px
    tall, wide = frames_of(5, 3, px * 2, px), frames_of(6, 3, px, px * 2)
    bad = item_of(clip_item, frames_for(stage, 7, 2), pts=(0, 45000))
    cells = stage.process([item_of(clip_item, tall), bad, item_of(clip_item, wide)])
    assert [cell.outcome for cell in cells] == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    assert cells[1].failure.message == "needs 3 frames, got 2"


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.03), ("float16", 0.004)])
def test_smaller_numbers_give_nearly_the_same(stage, dtype, tolerance):
    frames = frames_for(stage, 8, 2)
    small = Clip(stage.config.model_copy(update={"dtype": dtype}))
    small.setup()
    np.testing.assert_allclose(small.embed(frames), stage.embed(frames), atol=tolerance)
    assert small.fingerprint({}) != stage.fingerprint({})


def test_a_model_is_made_without_a_network(kit, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked for an address")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in KINDS:
        Clip(ClipConfig(model=name)).setup()


def test_only_the_image_half_stays(stage):
    held = sum(p.numel() for p in stage._tower._network.parameters())
    assert not hasattr(stage._tower, "_model")
    assert (
        sum(p.numel() for v in vars(stage._tower).values() if isinstance(v, torch.nn.Module) for p in v.parameters())
        == held
    )


def test_the_card_says_what_the_stage_must_know(kit, tmp_path):
    files = upstream_folder(kit, "openai")
    kit.add("bare", files, {"image_px": 32})
    with pytest.raises(ConfigError, match=r"'bare\.yaml: settings\.embedding' is missing"):
        Clip(ClipConfig(model="bare")).setup()
    kit.add("wrong", files, {"image_px": 32, "embedding": 512, "family": "kit"})
    with pytest.raises(ModelFileError, match="gives 24 numbers; its card says 32 px and 512"):
        Clip(ClipConfig(model="wrong")).setup()
    with pytest.raises(ConfigError, match="did you mean 'siglip'"):
        Clip(ClipConfig(model="siglib"))


class Tell:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_pickle_is_read_when_it_holds_tensors_alone(kit, tmp_path):
    add_open_clip(kit, "pickled", OPENAI_LIKE, tmp_path / "pickled", pickled=True)
    pickled, plain = Clip(ClipConfig(model="pickled")), Clip(ClipConfig(model="openai"))
    pickled.setup()
    plain.setup()
    frames = frames_for(plain, 9, 2)
    np.testing.assert_array_equal(pickled.embed(frames), plain.embed(frames))


def test_a_pickle_that_would_run_code_is_refused(kit, tmp_path):
    told = tmp_path / "told"
    write_open_clip(tmp_path / "evil", OPENAI_LIKE, pickled=True)
    torch.save({"a": Tell(told)}, tmp_path / "evil" / "open_clip_pytorch_model.bin")
    kit.add("evil", tmp_path / "evil", {"image_px": 32, "embedding": 24, "family": "kit"})
    with pytest.raises(ModelFileError, match="tensors alone"):
        Clip(ClipConfig(model="evil")).setup()
    assert not told.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision_cfg": {**SIGLIP_LIKE["model_cfg"]["vision_cfg"], "timm_model_name": "hf-hub:some/one"}}, "on a hub"),
        ({"text_cfg": {"hf_model_name": "some/one"}}, "on a hub"),
        ({"vision_cfg": 3}, "no configuration of an OpenCLIP model"),
        ({"embed_dim": 48}, "cannot make a model"),
    ],
)
def test_a_folder_that_is_no_such_model_is_refused(kit, tmp_path, change, words):
    folder = tmp_path / "broken"
    write_open_clip(folder, SIGLIP_LIKE)
    config = {**SIGLIP_LIKE, "model_cfg": {**SIGLIP_LIKE["model_cfg"], **change}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    kit.add("broken", folder, {"image_px": 160, "embedding": 96, "family": "kit"})
    with pytest.raises(ModelFileError, match=words):
        Clip(ClipConfig(model="broken")).setup()


def test_a_missing_library_is_named_with_its_extra(kit, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(MissingModelError, match=r"pip install 'curate-video\[clip\]'"):
        Clip(ClipConfig(model="openai")).setup()


def test_a_stage_is_light_and_travels(kit):
    stage = Clip(ClipConfig(model="openai", gpus=0.5, batch_size=7))
    again = pickle.loads(pickle.dumps(stage))
    assert again.fingerprint({}) == stage.fingerprint({})
    assert (again.resources.gpus, again.resources.gpu_optional, again.resources.batch_size) == (0.5, True, 7)
    assert set(stage.model_digests()) == {"openai/open_clip_config.json", "openai/open_clip_model.safetensors"}
