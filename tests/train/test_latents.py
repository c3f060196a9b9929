"""What is encoded beforehand is what would be encoded on the fly, is computed once, and never taken for another's."""

import hashlib
import shutil
from itertools import islice

import pytest
import torch
from clips_kit import CAPTIONS, Spec, clip_id, make_set, small, usual
from safetensors.torch import load_file

from curate.errors import CorpusError, StorageError
from curate.shards.reader import ShardSet, read_samples
from curate.storage import Place
from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.data.store import Store
from curate.train.data.worker import Ahead, Sources
from curate.train.latents import Work, precompute, precompute_texts

EXACT = Work(dtype="float32", chunk=5)


class TinyCodec(torch.nn.Module):
    """A codec of one strided convolution; ``n_encoded`` counts frames."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = torch.nn.Conv2d(3, 4, 8, stride=8)
        self.n_encoded = 0

    @property
    def digest(self):
        weights = b"".join(value.numpy().tobytes() for value in self.state_dict().values())
        return hashlib.sha256(weights).hexdigest()

    def encode(self, frames):
        assert frames.dtype == torch.float32
        assert frames.abs().max() <= 1
        self.n_encoded += len(frames)
        return self.net(frames)


class TinyText(torch.nn.Module):
    """Letters looked up in a table, 8 of them."""

    digest = "letters"

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.table = torch.nn.Embedding(128, 6)

    def encode(self, texts):
        return self.table(torch.tensor([[ord(letter) % 128 for letter in text[-8:].rjust(8)] for text in texts]))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(str(tmp_path_factory.mktemp("set")), usual(5), tmp_path_factory.mktemp("scratch"), per_shard=2)


@pytest.fixture(scope="module")
def catalogue(shards):
    return Catalogue.read(shards, small())


@pytest.fixture(scope="module")
def stored(catalogue, tmp_path_factory):
    """(folder, report): all clips, encoded."""
    out = Place(str(tmp_path_factory.mktemp("latents")))
    report = precompute(catalogue, TinyCodec(), out, EXACT)
    return out, report


def test_every_frame_of_every_clip_is_encoded_once(catalogue, stored):
    out, report = stored
    codec = TinyCodec()
    assert (report.encoded, report.found, report.without, report.lost) == (5, 0, 0, ())
    assert report.folder == out.child(f"{codec.digest}-float32").uri
    (path,) = Place(report.folder).child("parts").files()
    tensors = load_file(path)  # plain safetensors reads it
    videos = {hashlib.sha256(s.video).hexdigest() for entry in catalogue.entries for s in _samples(catalogue, entry)}
    assert set(tensors) == {f"{digest}-64x32" for digest in videos}
    assert {tuple(tensor.shape) for tensor in tensors.values()} == {(12, 4, 4, 8)}


def _samples(catalogue, entry):
    return read_samples(catalogue.shards.place(entry.path))


@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_latents_is_training_on_pictures(catalogue, stored, workers):
    codec = TinyCodec()
    shown = Loader(catalogue, small())
    kept = Loader(catalogue, small(), sources=Sources(latents=stored[1].folder, first=True), ahead=Ahead(workers))
    for batch, latent in islice(zip(shown, kept, strict=True), 4):
        with torch.no_grad():
            wanted = torch.stack([codec.encode(video) for video in batch.pixels()])
        torch.testing.assert_close(latent.latents, wanted, rtol=1e-5, atol=1e-5)
        assert latent.video is None
        assert torch.equal(latent.first, batch.video[:, 0])
        assert (latent.clip_ids, latent.captions) == (batch.clip_ids, batch.captions)
        assert torch.equal(latent.start, batch.start)
        assert torch.equal(latent.stride, batch.stride)
    kept.close()


def test_half_precision_is_what_is_kept_by_default(catalogue, stored, tmp_path):
    report = precompute(catalogue, TinyCodec(), Place(str(tmp_path)))
    assert report.folder.endswith("-float16")
    batches = [next(Loader(catalogue, small(), sources=Sources(f.folder))) for f in (report, stored[1])]
    assert batches[0].latents.dtype == torch.float16
    torch.testing.assert_close(batches[0].latents.float(), batches[1].latents, rtol=1e-3, atol=1e-3)


def test_what_is_there_is_not_computed_again(catalogue, stored):
    out, _ = stored
    before = out.tree()
    codec = TinyCodec()
    report = precompute(catalogue, codec, out, EXACT)
    assert (report.encoded, report.found, codec.n_encoded) == (0, 5, 0)
    assert out.tree() == before


def test_another_codec_gets_a_folder_of_its_own(catalogue, stored, tmp_path):
    shutil.copytree(stored[0].path, tmp_path / "out")
    report = precompute(catalogue, TinyCodec(seed=1), Place(str(tmp_path / "out")), EXACT)
    assert (report.encoded, report.found) == (5, 0)
    assert len(Place(str(tmp_path / "out")).folders()) == 2


@pytest.mark.parametrize("killed_before", ["map", "part"])
def test_a_killed_run_goes_on_where_it_stopped(catalogue, stored, tmp_path, monkeypatch, killed_before):
    out, one_each = Place(str(tmp_path)), Work(dtype="float32", chunk=5, part_bytes=1)
    name, left = {"map": "write_part", "part": "part_place"}[killed_before], iter(range(3))
    real = getattr(__import__("curate.train.latents", fromlist=[name]), name)

    def dying(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(f"curate.train.latents.{name}", dying)
    with pytest.raises(KeyboardInterrupt):
        precompute(catalogue, TinyCodec(), out, one_each)
    monkeypatch.undo()
    report = precompute(catalogue, TinyCodec(), out, one_each)
    assert (report.encoded, report.found) == (2, 3)
    batches = [next(Loader(catalogue, small(), sources=Sources(f.folder))) for f in (report, stored[1])]
    assert torch.equal(batches[0].latents, batches[1].latents)
    assert len(Place(report.folder).child("parts").files()) == 5


def test_shards_exported_anew_find_the_same_clips_by_their_content(stored, tmp_path):
    shutil.copytree(stored[0].path, tmp_path / "out")
    more = [*usual(5), Spec(captions={CAPTIONS[0]: "new"})]
    anew = make_set(str(tmp_path / "set"), more, tmp_path, per_shard=3)
    catalogue, codec = Catalogue.read(anew, small()), TinyCodec()
    report = precompute(catalogue, codec, Place(str(tmp_path / "out")), EXACT)
    assert (report.encoded, report.found, codec.n_encoded) == (1, 5, 12)
    batch = next(Loader(catalogue, small(), sources=Sources(report.folder)))
    assert batch.latents.shape == (2, 4, 4, 4, 8)


def test_a_clip_of_the_same_name_but_other_content_is_not_taken_for_it(stored, tmp_path):
    changed = make_set(str(tmp_path / "set"), usual(5, frames=10), tmp_path, per_shard=2)
    catalogue = Catalogue.read(changed, small())
    loader = Loader(catalogue, small(), sources=Sources(stored[1].folder))
    with pytest.raises(CorpusError, match=rf"holds nothing of clip {clip_id(0)[:0]}\w+ for 64x32"):
        next(loader)


def test_ranks_share_the_shards(catalogue, tmp_path):
    works = [Work(dtype="float32", chunk=5, rank=rank, world=2) for rank in range(2)]
    reports = [precompute(catalogue, TinyCodec(), Place(str(tmp_path)), work) for work in works]
    assert [report.encoded for report in reports] == [3, 2]
    assert precompute(catalogue, TinyCodec(), Place(str(tmp_path)), EXACT).found == 5


def test_a_damaged_clip_is_counted_and_the_others_are_encoded(shards, tmp_path):
    shutil.copytree(shards.folder.path, tmp_path / "set")
    catalogue = Catalogue.read(ShardSet.open(Place(str(tmp_path / "set"))), small())
    ref = catalogue.ref(2)
    path = tmp_path / "set" / catalogue.entries[ref.shard].path
    data = bytearray(path.read_bytes())
    data[ref.offset_bytes : ref.offset_bytes + ref.video_bytes] = b"\xff" * ref.video_bytes
    path.write_bytes(data)
    report = precompute(catalogue, TinyCodec(), Place(str(tmp_path / "out")), EXACT)
    assert report.encoded == 4
    assert [(loss.clip_id, loss.shard) for loss in report.lost] == [(ref.clip_id, str(path))]


def test_texts_are_encoded_and_follow_the_caption_that_is_drawn(catalogue, stored, tmp_path):
    encoder = TinyText()
    report = precompute_texts(catalogue, encoder, CAPTIONS, Place(str(tmp_path)), EXACT)
    assert (report.encoded, report.without) == (15, 0)
    images = precompute(catalogue, _Mean(), Place(str(tmp_path)), EXACT)
    sources = Sources(latents=stored[1].folder, texts=report.folder, images=images.folder, first=True)
    for batch in islice(Loader(catalogue, small(), sources=sources), 4):
        with torch.no_grad():
            assert torch.equal(batch.text, encoder.encode(batch.captions))
        means = batch.first.float().div(127.5).sub(1).mean((1, 2))
        torch.testing.assert_close(batch.image, means, rtol=1e-4, atol=1e-4)


class _Mean:
    digest = "mean"

    def encode(self, frames):
        return frames.mean((2, 3))


def test_clips_without_a_text_are_counted(tmp_path):
    specs = [Spec(captions={CAPTIONS[0]: "a", CAPTIONS[1]: None}), Spec(captions={CAPTIONS[0]: "b", CAPTIONS[1]: "c"})]
    config = small(captions=dict.fromkeys(CAPTIONS[:2], 1.0))
    catalogue = Catalogue.read(make_set(str(tmp_path / "set"), specs, tmp_path), config)
    report = precompute_texts(catalogue, TinyText(), CAPTIONS[:2], Place(str(tmp_path / "out")), EXACT)
    assert (report.encoded, report.without) == (3, 1)
    assert next(Loader(catalogue, config, sources=Sources(texts=report.folder))).text.shape == (2, 8, 6)


def test_latents_lie_on_any_place(catalogue, stored, memory_bucket):
    report = precompute(catalogue, TinyCodec(), Place(f"{memory_bucket}/latents"), EXACT)
    batches = [next(Loader(catalogue, small(), sources=Sources(f.folder))) for f in (report, stored[1])]
    assert torch.equal(batches[0].latents, batches[1].latents)


def test_a_part_that_vanished_is_named(catalogue, stored, tmp_path):
    shutil.copytree(stored[1].folder, tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder" / "parts")
    ref = catalogue.ref(0)
    with pytest.raises(StorageError, match="parts"):
        Store(str(tmp_path / "folder")).whole(catalogue.entries[ref.shard].sha256, ref.clip_id, "64x32")
