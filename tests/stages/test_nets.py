"""Networks: prepared ahead, in batches that fit, and no clip's values depend on its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch

from curate.records import Outcome
from curate.stage import Column
from curate.stages.nets import NetConfig, NetStage, net_resources, place
from curate.view import ViewSpec


class Small(NetStage[NetConfig]):
    """A convolution over the middle frame."""

    name = "small"
    version = 1
    config_type = NetConfig
    columns: ClassVar[tuple[Column, ...]] = (Column("value", pa.float64(), "", ""),)
    room = 1 << 30
    """Clips for which the device has memory."""

    def views(self):
        return {"middle": ViewSpec(points=(0.5,), size_px=(16, 16))}

    def setup(self):
        device, dtype = self.settle()
        torch.manual_seed(1)
        self.network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 1))
        self.network.to(device, dtype)
        self.sizes, self.threads, self.inferring = [], set(), threading.Event()

    def prepare(self, items):
        self.threads.add(threading.get_ident())
        frames = np.stack([item.views["middle"].frames[0] for item in items])
        return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255

    def infer(self, items, prepared):
        self.sizes.append(len(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("injected")
        with torch.inference_mode():
            values = self.network(prepared)[:, 0]
        return [{"value": value} for value in values.tolist()]


class OnGpu(Small):
    """As on a GPU: batches of more than one clip."""

    name = "small.gpu"

    def setup(self):
        super().setup()
        self.rows = self.config.batch_size


@pytest.fixture
def items(clip_item):
    rng = np.random.default_rng(3)
    return [clip_item(views={"middle": rng.integers(0, 256, (1, 16, 16, 3), np.uint8)}) for _ in range(11)]


def made(cls, **config):
    stage = cls(NetConfig(**config))
    stage.setup()
    return stage


def cut(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[start : start + size] for start in range(0, len(items), size))


def values(cells):
    return [cell.values["value"] for cell in cells]


def test_values_are_those_of_each_clip_alone_whatever_the_batches(items):
    alone = [value for item in items for value in values(made(Small).process([item]))]
    assert len(set(alone)) == len(items)
    for size in (1, 3, 11):
        cells = made(Small).process_batches(cut(items, size))
        assert [value for batch in cells for value in values(batch)] == alone
    gpu = made(OnGpu, batch_size=4)
    assert values(gpu.process(items)) == pytest.approx(alone, abs=1e-6)
    assert gpu.sizes == [4, 4, 4]  # the last one padded


def test_the_next_batch_is_prepared_while_one_is_inferred(items):
    """Proven by waiting for it: were they one after the other this would never end."""

    class Waits(OnGpu):
        name = "small.waits"

        def setup(self):
            super().setup()
            self.prepared = threading.Semaphore(0)

        def prepare(self, items):
            found = super().prepare(items)
            self.prepared.release()
            return found

        def infer(self, items, prepared):
            if len(self.sizes) < 2:
                assert self.prepared.acquire(timeout=60)
                if len(self.sizes) == 0:
                    assert self.prepared.acquire(timeout=60)  # that of the batch after
            return super().infer(items, prepared)

    stage = made(Waits, batch_size=4)
    cells = [cell for batch in stage.process_batches(cut(items, 4)) for cell in batch]
    assert values(cells) == pytest.approx(values(made(Small).process(items)), abs=1e-6)
    assert threading.get_ident() not in stage.threads


def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered(items):
    stage = made(OnGpu, batch_size=8)
    stage.room = 3
    cells = stage.process(items[:8])
    assert values(cells) == pytest.approx(values(made(Small).process(items[:8])), abs=1e-6)
    assert stage.sizes == [8, 4, 2, 2, 2, 2]
    stage.sizes.clear()
    stage.process(items[:4])
    assert stage.sizes == [2, 2]


def test_a_clip_that_does_not_fit_alone_fails_alone(items):
    stage = made(OnGpu, batch_size=4)
    stage.room = 0
    cells = stage.process(items[:2])
    assert [cell.outcome for cell in cells] == [Outcome.FAILED] * 2
    assert all(cell.failure.error_class == "OutOfMemoryError" for cell in cells)


def test_a_clip_that_cannot_be_prepared_fails_alone(items, clip_item):
    bad = clip_item(views={"middle": np.zeros((0, 16, 16, 3), np.uint8)})
    batches = [[*items[:2], bad], items[2:4]]
    found = [cell for batch in made(OnGpu).process_batches(batches) for cell in batch]
    assert [cell.outcome for cell in found] == [Outcome.OK] * 2 + [Outcome.FAILED] + [Outcome.OK] * 2
    good = values(made(Small).process(items[:4]))
    assert [cell.values["value"] for cell in found if cell.outcome is Outcome.OK] == pytest.approx(good, abs=1e-6)


def test_resources_follow_the_configuration():
    needs = net_resources(NetConfig(gpus=0.5, batch_size=7), ["pp-ocr-det"])
    assert (needs.gpus, needs.gpu_optional, needs.batch_size, needs.memory_bytes) == (0.5, True, 7, 300_000_000)
    assert net_resources(NetConfig(device="cpu"), []).gpus == 0
    assert not net_resources(NetConfig(device="cuda"), []).gpu_optional
    assert place(NetConfig(device="cpu", dtype="bfloat16")) == (torch.device("cpu"), torch.bfloat16)
    assert place(NetConfig(device="cpu"))[1] is torch.float32


def test_a_fingerprint_follows_what_decides_values_alone():
    def fingerprint(**config):
        return Small(NetConfig(**config)).fingerprint({})

    assert fingerprint() == fingerprint(gpus=1.0) == fingerprint(batch_size=3)
    assert fingerprint() != fingerprint(dtype="float32")
    assert fingerprint() != fingerprint(device="cpu"), "it chooses the number format"
    assert fingerprint(dtype="float32") == fingerprint(dtype="float32", device="cpu")
