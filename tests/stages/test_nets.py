"""Networks: prepared ahead, in batches that fit, and no clip's values depend on its neighbours."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch

from curate.errors import DeviceLostError, DeviceMemoryError, StageError
from curate.records import Outcome
from curate.stage import Column
from curate.stages.batches import CONTEXT_BYTES, rows_within
from curate.stages.nets import NetConfig, NetStage, net_resources, place
from curate.view import ViewSpec

GIB = 1 << 30


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

    def load(self, device, dtype):
        torch.manual_seed(1)
        self.network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 1))
        self.network.to(device, dtype)
        self.sizes, self.threads, self.n_prepared = [], set(), 0

    def prepare(self, item):
        self.threads.add(threading.get_ident())
        self.n_prepared += 1
        frame = item.views["middle"].frames[0]
        return torch.from_numpy(frame).permute(2, 0, 1).float()[None] / 255

    def infer(self, items, prepared):
        self.sizes.append(len(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("injected")
        with torch.inference_mode():
            values = self.network(prepared)[:, 0]
        return [{"value": value} for value in values.tolist()]


class OnGpu(Small):
    """As on a GPU with room for any batch: `room` alone limits it."""

    name = "small.gpu"
    total_bytes = 100 << 30
    clip_bytes = 1

    def memory_of(self, device):
        return Fake(self)


@dataclass
class Fake:
    """What a GPU would say of its memory, injected: the model takes a gigabyte, a clip ``clip_bytes``."""

    stage: OnGpu

    @property
    def total_bytes(self):
        return self.stage.total_bytes

    def held_bytes(self):
        return GIB * hasattr(self.stage, "network")

    def taken_bytes(self, work):
        work()
        self.stage.sizes.clear()
        return self.stage.clip_bytes


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

        def sample(self):
            return None

        def join(self, parts):
            found = super().join(parts)
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
    assert all(cell.failure.error_class == "NoRoomError" for cell in cells)


def test_a_clip_that_cannot_be_prepared_fails_alone_and_nothing_is_computed_twice(items, clip_item):
    bad = clip_item(views={"middle": np.zeros((0, 16, 16, 3), np.uint8)})
    batches = [[*items[:2], bad], items[2:4]]
    stage = made(OnGpu)
    stage.n_prepared = 0
    found = [cell for batch in stage.process_batches(batches) for cell in batch]
    assert stage.sizes == [32, 32], "each batch once"
    assert stage.n_prepared == 5, "padding is not prepared"
    assert [cell.outcome for cell in found] == [Outcome.OK] * 2 + [Outcome.FAILED] + [Outcome.OK] * 2
    good = values(made(Small).process(items[:4]))
    assert [cell.values["value"] for cell in found if cell.outcome is Outcome.OK] == pytest.approx(good, abs=1e-6)


def test_resources_follow_the_configuration():
    needs = net_resources(NetConfig(gpus=0.5, batch_size=7), ["pp-ocr-det"])
    assert (needs.gpus, needs.gpu_optional, needs.batch_size, needs.memory_bytes) == (0.5, True, 7, 300_000_000)
    assert needs.cpus == 0.5, "beside a GPU a worker does not keep a core busy"
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


def test_a_value_that_is_wrong_fails_its_clip_alone(items):
    class Strange(OnGpu):
        name = "small.strange"

        def infer(self, items, prepared):
            found = list(super().infer(items, prepared))
            return [found[0], {"value": float("nan")}, {"other": 1.0}, StageError("sees nothing"), *found[4:]]

    stage = made(Strange, batch_size=8)
    cells = stage.process(items[:8])
    assert [cell.outcome for cell in cells] == [Outcome.OK, *[Outcome.FAILED] * 3, *[Outcome.OK] * 4]
    assert stage.sizes == [8]


@pytest.mark.parametrize(("most", "room", "rows"), [(32, 320, 32), (32, 319, 16), (32, 79, 4), (3, 29, 1), (32, -1, 1)])
def test_a_batch_is_halved_until_the_budget_holds_it(most, room, rows):
    assert rows_within(most, room, 10) == rows


def test_the_size_of_a_batch_follows_the_stages_share_of_the_memory(items):
    """Of 40 GB a quarter is ten: less the model's one and the driver's half that is 8.5 for clips."""

    class Card(OnGpu):
        name = "small.card"
        total_bytes = 40 * GIB
        clip_bytes = GIB // 2

    assert CONTEXT_BYTES == GIB // 2
    assert made(Card, batch_size=32).rows == 16
    assert made(Card, batch_size=12).rows == 12
    assert made(Card, batch_size=32, gpus=0.1).rows == 4
    assert made(Card, batch_size=32, gpus=0.04).rows == 1, "the model is larger than the share"
    assert made(Card, batch_size=32, gpus=1.0).rows == 32
    alone = values(made(Small).process(items))
    for share in (0.04, 0.1, 0.25):
        assert values(made(Card, gpus=share).process(items)) == pytest.approx(alone, abs=1e-6)
    assert made(Small, batch_size=32).rows == 1


def test_where_no_clip_can_be_tried_a_batch_starts_as_large_as_it_may(items):
    class Odd(OnGpu):
        name = "small.odd"
        clip_bytes = GIB

        def views(self):
            return {"middle": ViewSpec(sampling="every", every_s=0.25, size_px=(16, 16))}

    class Blind(OnGpu):
        name = "small.blind"

        def sample(self):
            return None if self.config.batch_size == 8 else items[0]

        def prepare(self, item):
            raise StageError("cannot see")

    assert made(Odd, batch_size=64).rows == 64
    assert made(Blind, batch_size=8).rows == 8
    assert made(Blind, batch_size=16).rows == 16


@pytest.mark.parametrize("where", ["load", "infer"])
def test_a_model_that_does_not_fit_is_one_error_and_no_failed_cell(where):
    class Full(OnGpu):
        name = "small.full"
        room = 0 if where == "infer" else 8

        def load(self, device, dtype):
            super().load(device, dtype)
            if where == "load":
                try:
                    raise torch.OutOfMemoryError("injected")
                except RuntimeError as error:
                    raise StageError("a library's word for it") from error

    with pytest.raises(DeviceMemoryError, match=r"no room .*raise their `gpus`"):
        made(Full)


def test_a_gpu_that_is_lost_fails_no_clip(items):
    class Lost(OnGpu):
        name = "small.lost"

        def infer(self, items, prepared):
            if hasattr(self, "lost"):
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            return super().infer(items, prepared)

    stage = made(Lost)
    stage.lost = True
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        list(stage.process_batches([items]))


def test_a_driver_without_memory_is_no_lost_gpu(items):
    class Tight(OnGpu):
        name = "small.tight"

        def infer(self, items, prepared):
            if len(items) > self.room:
                error = torch.AcceleratorError("CUDA error: out of memory")
                error.error_code = 2
                raise error
            return super().infer(items, prepared)

    stage = made(Tight, batch_size=8)
    stage.room = 2
    assert values(stage.process(items)) == pytest.approx(values(made(Small).process(items)), abs=1e-6)
    assert stage.rows == 2


def test_a_stage_says_how_long_it_waited_for_its_own_preparation(items):
    class Slow(OnGpu):
        name = "small.slow"

        def prepare(self, item):
            time.sleep(0.02)
            return super().prepare(item)

    stage = made(Slow, batch_size=4)
    assert stage.waited_s == 0.0
    list(stage.process_batches(cut(items, 4)))
    assert 0.15 < stage.waited_s < 2.0, "eleven clips of 20 ms, and the network takes next to none of that"
    quick = made(OnGpu, batch_size=4)
    list(quick.process_batches(cut(items, 4)))
    assert quick.waited_s < 0.1


def test_clips_of_several_shapes_go_in_batches_of_their_own(clip_item):
    rng = np.random.default_rng(4)

    class Sizes(OnGpu):
        name = "small.sizes"

        def load(self, device, dtype):
            super().load(device, dtype)
            self.network = torch.nn.Sequential(
                torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 1)
            )

        def shape(self, part):
            return tuple(part.shape)

    sizes = [(16, 16), (8, 20), (16, 16), (8, 20), (16, 16)]
    items = [clip_item(views={"middle": rng.integers(0, 256, (1, *size, 3), np.uint8)}) for size in sizes]
    stage = made(Sizes, batch_size=4)
    together = values(stage.process(items))
    assert stage.sizes == [4, 4]
    assert together == [values(stage.process([item]))[0] for item in items]
