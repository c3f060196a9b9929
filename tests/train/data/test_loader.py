"""A batch is a function of its position: the same after a resume, with any number of workers or ranks."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from itertools import islice

import pytest
import torch
from clips_kit import clip_id, make_set, served, small, usual

from curate.errors import ConfigError, CorpusError, EngineError
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.data.order import Position
from curate.train.data.worker import Ahead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")
    make_set(str(path / "shards"), usual(9), tmp_path_factory.mktemp("scratch"))
    return path / "shards"


@pytest.fixture(scope="module")
def catalogue(folder):
    return opened(folder)


def opened(folder, **more):
    return Catalogue.read(ShardSet.open(Place(str(folder))), small(**more))


def content(batch):
    """All that a batch holds, as plain values."""
    tensors = {name: getattr(batch, name) for name in ("video", "fps", "motion", "start", "stride")}
    plain = {name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()}
    return {**plain, "position": batch.position, "clips": batch.clip_ids, "captions": batch.captions}


def contents(loader, n):
    found = [content(batch) for batch in islice(loader, n)]
    loader.close()
    return found


@pytest.fixture(scope="module")
def undisturbed(catalogue):
    return contents(Loader(catalogue, small()), 12)


def test_batches_have_the_shape_of_their_bucket(catalogue):
    batch = next(Loader(catalogue, small()))
    assert (batch.video.shape, batch.video.dtype) == ((2, 4, 32, 64, 3), torch.uint8)
    assert (batch.fps.shape, batch.motion.shape, len(batch.captions), len(batch.clip_ids)) == ((2,), (2,), 2, 2)
    assert batch.pixels().shape == (2, 4, 3, 32, 64)
    assert batch.pixels().min() >= -1
    assert batch.pixels().max() <= 1
    assert batch.pixels().std() > 0.1


def test_an_epoch_shows_no_clip_twice_and_the_next_one_another_order(undisturbed):
    epochs = [[c for batch in undisturbed[4 * e : 4 * e + 4] for c in batch["clips"]] for e in range(3)]
    assert [batch["position"] for batch in undisturbed] == [Position(0, e, at) for e in range(3) for at in range(4)]
    assert all(max(Counter(epoch).values()) == 1 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert {c for epoch in epochs for c in epoch} == {clip_id(n) for n in range(9)}  # the ninth waits for its epoch


@pytest.mark.parametrize(("workers", "at"), [(0, 1), (0, 4), (1, 6), (2, 5)])
def test_a_resumed_run_gives_the_batches_of_the_undisturbed_one(catalogue, undisturbed, workers, at):
    first = Loader(catalogue, small(), ahead=Ahead(workers))
    assert contents(first, at) == undisturbed[:at]
    state = json.loads(json.dumps(first.state()))
    again = Loader(catalogue, small(), ahead=Ahead(workers))
    again.resume(state)
    assert again.position == Position(0, at // 4, at % 4)
    assert contents(again, 12 - at) == undisturbed[at:]


def test_what_workers_decoded_ahead_does_not_move_the_position(catalogue):
    loader = Loader(catalogue, small(), ahead=Ahead(workers=1, prefetch=4))
    next(loader)
    assert loader.position == Position(0, 0, 1)
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_two_ranks_share_the_batches_of_one(catalogue, undisturbed, workers):
    shares = [contents(Loader(catalogue, small(), rank=rank, world=2, ahead=Ahead(workers)), 6) for rank in range(2)]
    for whole, *parts in zip(undisturbed[:6], *shares, strict=True):
        for name in ("clips", "captions"):
            assert [part[name][0] for part in parts] == whole[name]
        for name in ("video", "fps", "motion", "start", "stride"):
            assert [part[name][1][0] for part in parts] == whole[name][1]


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused(catalogue):
    with pytest.raises(ConfigError, match="does not divide among 3 ranks"):
        Loader(catalogue, small(), world=3)


def test_a_seed_decides_the_order(catalogue, undisturbed):
    loader = Loader(catalogue, small())
    loader.seek(Position(1))
    assert [batch["clips"] for batch in contents(loader, 4)] != [batch["clips"] for batch in undisturbed[:4]]


def test_a_state_of_other_shards_or_settings_is_refused(folder, catalogue):
    state = Loader(catalogue, small()).state()
    other = Loader(opened(folder, batch=3), small(batch=3))
    with pytest.raises(ConfigError, match="not those of the checkpoint"):
        other.resume(state)


def test_shards_are_read_from_memory(memory_bucket, folder, undisturbed):
    place = Place(f"{memory_bucket}/set")
    place.fs.put(str(folder), place.path, recursive=True)
    assert contents(Loader(opened(place.uri), small()), 4) == undisturbed[:4]


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_are_read_from_the_web(folder, undisturbed, workers):
    with served(folder) as address:
        assert contents(Loader(opened(address), small(), ahead=Ahead(workers)), 2) == undisturbed[:2]


def test_waiting_for_batches_is_told(catalogue):
    loader = Loader(catalogue, small())
    list(islice(loader, 4))
    stall = loader.stall
    assert stall.n_batches == 4
    assert stall.first_s > 0
    assert 0 < stall.wait_s <= stall.wall_s
    assert stall.share > 0.9  # nothing else was done


def test_a_slow_consumer_does_not_wait_for_workers(catalogue):
    loader = Loader(catalogue, small(), ahead=Ahead(1))
    next(loader)
    for _ in range(3):
        time.sleep(0.5)
        next(loader)
    loader.close()
    assert loader.stall.share < 0.5


def damaged(folder, numbers, how):
    """Spoil clips in a copy of the set; gives the URI of each one's shard."""
    catalogue, spoiled = opened(folder), {}
    refs = [catalogue.ref(row) for row in range(catalogue.n_clips)]
    for ref in refs:
        if ref.clip_id in {clip_id(number) for number in numbers}:
            path = folder / catalogue.entries[ref.shard].path
            data = bytearray(path.read_bytes())
            start, size = ref.offset_bytes, ref.video_bytes
            spoiled[ref.clip_id] = str(path)
            if how == "video":
                data[start : start + size] = b"\xff" * size
            else:
                data[start : start + ref.sample_bytes] = bytes(ref.sample_bytes)
            path.write_bytes(data)
    return spoiled


@pytest.mark.parametrize(("how", "workers"), [("video", 0), ("video", 1), ("all", 0)])
def test_a_damaged_clip_is_named_counted_and_always_replaced_by_the_same(folder, tmp_path, undisturbed, workers, how):
    shutil.copytree(folder, tmp_path / "shards")
    spoiled = damaged(tmp_path / "shards", [3], how)
    told = []
    loader = Loader(opened(tmp_path / "shards"), small(), ahead=Ahead(workers), on_lost=told.append)
    found = contents(loader, 12)
    assert [loss.clip_id for loss in told] == [clip_id(3)] == list(loader.lost)
    assert told[0].shard == spoiled[clip_id(3)]
    assert ("DecodeError" if how == "video" else "CorpusError") in told[0].reason
    seen = {c for batch in found for c in batch["clips"]}
    assert seen == {clip_id(n) for n in range(9) if n != 3}
    for was, now in zip(undisturbed, found, strict=True):
        assert len(now["clips"]) == 2
        same = [a == b for a, b in zip(was["clips"], now["clips"], strict=True)]
        assert same == [c != clip_id(3) for c in was["clips"]]
    assert contents(Loader(opened(tmp_path / "shards"), small(), on_lost=told.append), 12) == found


def test_a_shard_that_vanished_stops_the_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "shards")
    loader = Loader(opened(tmp_path / "shards"), small(), on_lost=lambda loss: None)
    (tmp_path / "shards" / "all" / "000000.tar").unlink()
    with pytest.raises(CorpusError, match=r"000000.tar: [23] of 9 clips cannot be read, .*: StorageError"):
        contents(loader, 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_which_nothing_can_be_read_stops_the_run(folder, tmp_path, workers):
    shutil.copytree(folder, tmp_path / "shards")
    damaged(tmp_path / "shards", range(9), "video")
    loader = Loader(opened(tmp_path / "shards"), small(), ahead=Ahead(workers))
    with pytest.raises(CorpusError, match=r"none of the clips .* can be read"):
        next(loader)
    loader.close()


def test_a_worker_that_is_killed_stops_the_run(catalogue):
    others = multiprocessing.active_children()
    loader = Loader(catalogue, small(), ahead=Ahead(1))
    next(loader)
    (worker,) = [child for child in multiprocessing.active_children() if child not in others]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="a process that reads clips died"):
        contents(loader, 10)
    loader.close()


def test_without_a_listener_a_lost_clip_is_logged(folder, tmp_path, caplog, monkeypatch):
    shutil.copytree(folder, tmp_path / "shards")
    damaged(tmp_path / "shards", [3], "video")
    logger = logging.getLogger("curate.train.data.loader")
    # Listened to directly: libraries that other tests use change the settings of all loggers.
    for setting, value in {"disabled": False, "propagate": False, "handlers": [caplog.handler]}.items():
        monkeypatch.setattr(logger, setting, value)
    caplog.set_level("WARNING", logger=logger.name)
    contents(Loader(opened(tmp_path / "shards"), small()), 8)
    assert caplog.text.count(clip_id(3)) == 1
    assert "the next one is taken instead" in caplog.text
