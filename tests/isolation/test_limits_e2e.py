"""Sources that would take a worker with them: each is stopped within its limit, and its neighbours are untouched.

A decoder that dies or spins: `tests/engine/test_reading.py`.
"""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from engine_kit import Listening, Luma, LumaConfig, StrideConfig, StrideCut, run

from curate.bulk import inline_map
from curate.engine.inline import InlineEngine
from curate.engine.pipeline import build_pipeline
from curate.engine.reading import SourceReader, SourceStages
from curate.engine.run import RunRequest, execute
from curate.errors import DecodeLimitError, StorageError
from curate.ingest.listing import list_inputs
from curate.isolation import Limits, Sandbox
from curate.media.facts import read_facts
from curate.query import last_run
from curate.stage import SourceFile, Thumb
from curate.stages.probe import Probe, ProbeConfig
from curate.tables import Corpus, read_parquet
from curate.testing.footage import moving_texture, write_video

MEMORY_BYTES = 500 << 20
WIDE_PX = 96


class GreedyCut(StrideCut):
    """Eats memory on sources of one width, as a decoder might on a file that claims too much."""

    def detector(self, facts):
        made = super().detector(facts)
        return Greedy(made) if facts.width_px == WIDE_PX else made


class Greedy:
    def __init__(self, made):
        self._made = made
        self._held = []

    def __getattr__(self, name):
        return getattr(self._made, name)

    def push(self, thumb: Thumb):
        self._held.append(np.empty(64 << 20, np.uint8))
        return self._made.push(thumb)


@pytest.fixture
def bucket(tmp_path):
    """Three sources; the second is the one that is stopped."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name, width_px in (("a", 64), ("b", WIDE_PX), ("c", 64)):
        write_video(folder / f"{name}.mp4", moving_texture(75, width_px, 48, (1, 0), seed=ord(name)))
    return folder


def pipeline(cut):
    return build_pipeline([Probe(ProbeConfig()), cut, Luma(LumaConfig())])


def inputs(out):
    rows = read_parquet(Corpus(str(out)).runs().child(last_run(Corpus(str(out))), "inputs.parquet")).to_pylist()
    return {Path(row["uri"]).name: (row["outcome"], row["cause"]) for row in rows}


def test_a_child_that_eats_memory_is_stopped_and_its_neighbours_are_untouched(tmp_path, bucket):
    pipe = pipeline(GreedyCut(StrideConfig()))
    engine = InlineEngine(tmp_path, Limits(memory_bytes=MEMORY_BYTES))
    result, heard = run(tmp_path / "corpus", bucket, pipe, engine)
    assert result.counts["inputs"] == {"ok": 2, "failed": 1} and heard.deaths == []
    outcome, cause = inputs(tmp_path / "corpus")["b.mp4"]
    assert (outcome, "more memory" in cause) == ("failed", True)


class PatientCut(StrideCut):
    """Says that it may take long for a frame, as a network does."""

    s_per_frame = 2.0


def test_what_a_detector_may_take_for_a_frame_is_added_to_what_decoding_may_take(bucket):
    path = bucket / "a.mp4"
    file = SourceFile(str(path), str(path), "0" * 64, path.stat().st_size)
    reader = SourceReader(Limits(least_s=1e-4, s_per_megapixel=0.0, bytes_per_s=1e15))
    try:
        with pytest.raises(DecodeLimitError, match="took more"):
            list(reader.cut(file, read_facts(str(path)), stages(StrideCut(StrideConfig()))))
        found = list(reader.cut(file, read_facts(str(path)), stages(PatientCut(StrideConfig()))))
        assert found[-1]["n_frames"] == 75
    finally:
        reader.close()


def stages(cut):
    return SourceStages(Probe(ProbeConfig()), cut, {})


@pytest.fixture
def endless_fifo(tmp_path):
    """A FIFO with a writer that never ends."""
    path = tmp_path / "endless"
    os.mkfifo(path)
    stop = threading.Event()

    def feed():
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        while not stop.is_set():
            try:
                os.write(handle, b"\0" * 4096)
            except BlockingIOError:
                time.sleep(0.01)
        os.close(handle)

    writer = threading.Thread(target=feed, daemon=True)
    writer.start()
    yield path
    stop.set()
    writer.join()


class Swapping(Listening):
    """Puts a FIFO in the place of a source after everything was listed."""

    def __init__(self, fifo, target):
        super().__init__()
        self._fifo, self._target = fifo, target

    def planned(self, pass_number, works):
        super().planned(pass_number, works)
        if not self._target.is_fifo():
            self._fifo.replace(self._target)


def test_a_fifo_in_the_place_of_a_source_is_not_waited_for(tmp_path, bucket, endless_fifo):
    corpus = Corpus(str(tmp_path / "corpus"))
    corpus.create()
    pipe = pipeline(StrideCut(StrideConfig()))
    request = RunRequest(corpus, pipe, list_inputs([str(bucket)]), "test", "name: test\n")
    listening = Swapping(endless_fifo, bucket / "b.mp4")
    result = execute(request, InlineEngine(tmp_path), inline_map, tmp_path, listening)
    assert result.counts["inputs"] == {"ok": 2, "failed": 1}
    outcome, cause = inputs(tmp_path / "corpus")["b.mp4"]
    assert (outcome, "FIFO" in cause or "regular" in cause or "changed" in cause) == ("failed", True)


def test_the_decoding_process_opens_no_fifo(endless_fifo):
    reader = SourceReader(Limits(least_s=20.0))
    try:
        with pytest.raises(StorageError, match="not a regular file"):
            reader.probe(Probe(ProbeConfig()), SourceFile(str(endless_fifo), str(endless_fifo), "0" * 64, 1000))
    finally:
        reader.close()


def read_to_the_end(path):
    """What a demuxer would do that was given the FIFO all the same."""
    with Path(path).open("rb") as file:
        while file.read(4096):
            pass
    yield "the end"


def test_a_task_that_reads_without_end_is_stopped(endless_fifo):
    with Sandbox() as sandbox:
        began = time.monotonic()
        with pytest.raises(DecodeLimitError, match="took more"):
            list(sandbox.run(read_to_the_end, str(endless_fifo), limit_s=1.0))
        assert time.monotonic() - began >= 1.0
        assert list(sandbox.run(range, 3, limit_s=20.0)) == [0, 1, 2]
