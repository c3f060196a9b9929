"""The contract that every stage keeps, checked on small generated footage.

from curate.testing.contract import check_stage

def test_my_stage():
    check_stage(MyStage(MyConfig()))
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from curate.config import Config
from curate.engine.detect import DAMAGED, Detection
from curate.errors import CorpusError, StageError
from curate.media.facts import read_facts
from curate.media.views import ViewSampler, sample_spans
from curate.records import Cell, Clip, Outcome, SourceFacts, Span
from curate.stage import ClipItem, ClipStage, CutStage, ProbeStage, SourceFile, Stage
from curate.tables import BOOKKEEPING, cells_table
from curate.testing.footage import moving_object, moving_texture, text_card, write_video
from curate.view import View

_RATE_FPS = Fraction(24)
_ENGINE_COLUMNS = {"n_clips", DAMAGED}


@dataclass
class Broken:
    """The rules that a stage broke, in words."""

    stage: str
    rules: list[str] = field(default_factory=list)

    def expect(self, kept: bool, rule: str) -> None:
        """Note the rule unless it was kept."""
        if not kept:
            self.rules.append(rule)


def check_stage(
    stage: Stage[Any],
    items: Sequence[ClipItem] | None = None,
    *,
    cells: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Check a stage that was not set up yet; StageError lists every rule it broke.

    Any stage: configuration and identity survive JSON and pickling; every number and switch of the configuration that
    it calls deciding is part of the fingerprint, and no other. Clip stages, on ``items`` or else on `sample_items` with
    ``cells`` (values by the name of each stage it reads): exactly the declared columns in their types, the same twice,
    whatever the batch and its order; nothing touched that is not declared; pixels left alone; a bad item fails alone.
    Cut stages: spans in order, apart and inside the source. Probe stages: facts equal to those of the file.
    """
    broken = Broken(stage.name)
    _check_identity(stage, broken)
    worker = pickle.loads(pickle.dumps(stage))
    worker.setup()
    with tempfile.TemporaryDirectory(prefix="curate-contract-") as folder:
        if isinstance(worker, ClipStage):
            given = items if items is not None else sample_items(worker, Path(folder), cells)
            _check_clip_stage(worker, list(given), broken)
        elif isinstance(worker, CutStage):
            _check_cut_stage(worker, Path(folder), broken)
        elif isinstance(worker, ProbeStage):
            _check_probe_stage(worker, Path(folder), broken)
    if broken.rules:
        raise StageError("breaks the stage contract: " + "; ".join(broken.rules), subject=stage.name)


def sample_items(
    stage: ClipStage[Any], folder: Path, cells: Mapping[str, Mapping[str, Any]] | None = None
) -> list[ClipItem]:
    """Four clips of three generated sources (a pan in two parts, a standing camera upright, a text card) with the
    stage's views, by real decoding. ``cells`` are given to each."""
    missing = set(stage.reads) - set(cells or {})
    if missing:
        raise StageError(f"reads {sorted(missing)}: pass their values as cells=", subject=stage.name)
    scenes = {
        "pan": moving_texture(60, 160, 90, (-1.5, 0.0), seed=1),
        "tripod": moving_object(36, 90, 160, (1.0, 0.0), 30, seed=2),
        "card": text_card(36, 160, 90, "HELLO\nWORLD"),
    }
    items: list[ClipItem] = []
    for name, frames in scenes.items():
        path = folder / f"{name}.mp4"
        write_video(path, frames, _RATE_FPS)
        facts = read_facts(str(path))
        items += [ClipItem(clip, facts, views, cells or {}) for clip, views in _sampled(path, facts, stage)]
    return items


def _sampled(path: Path, facts: SourceFacts, stage: ClipStage[Any]) -> Iterator[tuple[Clip, Mapping[str, View]]]:
    middle_pts = (facts.start_pts + facts.end_pts) // 2
    edges = [facts.start_pts, middle_pts, facts.end_pts] if path.stem == "pan" else [facts.start_pts, facts.end_pts]
    spans = [Span(*edge) for edge in pairwise(edges)]
    clips = [Clip.of_span(path.stem, facts.stream, facts.time_base_fraction, span) for span in spans]
    return sample_spans(str(path), facts, clips, stage.views()) if stage.views() else ((clip, {}) for clip in clips)


class _Declared(Mapping[str, Any]):
    """What a stage declared. Asking for anything else is an error, and is remembered."""

    def __init__(self, data: Mapping[str, Any], touched: set[str]) -> None:
        self._data, self._touched = data, touched

    def __getitem__(self, name: str) -> Any:
        if name not in self._data:
            self._touched.add(name)
            raise StageError(f"asked for {name!r}, which it does not declare")
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def _check_identity(stage: Stage[Any], broken: Broken) -> None:
    config = stage.config
    broken.expect(isinstance(config, stage.config_type), f"config is no {stage.config_type.__name__}")
    broken.expect(isinstance(config, Config), "config does not derive from curate.config.Config")
    again = type(config).model_validate_json(config.model_dump_json())
    broken.expect(again == config, "config does not survive JSON")
    clone = pickle.loads(pickle.dumps(stage))
    own = stage.fingerprint({})
    broken.expect(clone.fingerprint({}) == own, "the fingerprint changes with pickling")
    broken.expect(stage.fingerprint({"other": "0"}) != own, "the fingerprint leaves out the cells it reads")
    for name, value in _altered(config):
        clone.config = config.model_copy(update={name: value})
        decides = name in config.deciding()
        rule = f"the fingerprint {'leaves out' if decides else 'follows'} config key {name!r}"
        broken.expect((clone.fingerprint({}) != own) is decides, rule)
    for column in stage.columns:
        broken.expect(column.name.isidentifier() and bool(column.doc), f"column {column.name!r} lacks a name or words")


def _altered(config: Config) -> Iterator[tuple[str, Any]]:
    """Each number and switch of a configuration with another value."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, bool):
            yield name, not value
        elif isinstance(value, int | float):
            yield name, value + 1


def _check_clip_stage(stage: ClipStage[Any], items: list[ClipItem], broken: Broken) -> None:
    touched: set[str] = set()
    shown = [_guarded(stage, item, touched) for item in items]
    cells = stage.process(shown)
    broken.expect(not touched, f"touches {sorted(touched)} without declaring it")
    for cell in cells:
        broken.expect(cell.outcome == Outcome.OK, f"fails on {cell.key}: {cell.failure and cell.failure.message}")
    try:
        table = _rows(stage, cells)
    except CorpusError as error:
        broken.rules.append(error.message)
        return
    single = [cell for item in shown for cell in stage.process([item])]
    broken.expect(_rows(stage, stage.process(shown)) == table, "gives other values the second time")
    broken.expect(_rows(stage, single) == table, "gives other values one by one than in a batch")
    backwards = list(reversed(stage.process(list(reversed(shown)))))
    broken.expect(_rows(stage, backwards) == table, "gives other values in another order")
    if stage.views() and len(shown) > 1:
        _check_bad_item(stage, shown, table, broken)


def _check_bad_item(stage: ClipStage[Any], shown: list[ClipItem], table: list[dict[str, Any]], broken: Broken) -> None:
    bad = replace(shown[0], views=_Declared({}, set()))
    mixed = stage.process([bad, *shown[1:]])
    broken.expect(mixed[0].outcome == Outcome.FAILED, "gives values to an item without its views")
    broken.expect(_rows(stage, mixed[1:]) == table[1:], "a bad item changes its neighbours")


def _guarded(stage: ClipStage[Any], item: ClipItem, touched: set[str]) -> ClipItem:
    views = {name: view for name, view in item.views.items() if name in stage.views()}
    for view in views.values():
        view.frames.flags.writeable = False
    cells = {name: values for name, values in item.cells.items() if name in stage.reads}
    return replace(item, views=_Declared(views, touched), cells=_Declared(cells, touched))


def _rows(stage: Stage[Any], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The table rows without what may differ from run to run. CorpusError when a value does not fit its type."""
    table = cells_table(stage, cells, host="", run_id="")
    return table.drop_columns(list(BOOKKEEPING)).to_pylist()


def _check_cut_stage(stage: CutStage[Any], folder: Path, broken: Broken) -> None:
    path = folder / "shots.mp4"
    shots = [moving_texture(40, 160, 90, (1.0, 0.0), seed) for seed in (1, 2)]
    write_video(path, chain(*shots), _RATE_FPS)
    facts = read_facts(str(path))
    spans, summary = _cut(stage, path, facts)
    broken.expect((spans, summary) == _cut(stage, path, facts), "finds other spans the second time")
    edges = [edge for span in spans for edge in (span.start_pts, span.end_pts)]
    inside = not edges or (edges[0] >= facts.start_pts and edges[-1] <= facts.end_pts)
    broken.expect(edges == sorted(edges) and inside, "spans overlap, are out of order or leave the source")
    broken.expect(all(span.start_pts < span.end_pts for span in spans), "a span is empty")
    names = {column.name for column in stage.columns} - _ENGINE_COLUMNS
    broken.expect(set(summary) == names, f"the summary has {sorted(summary)}, declared are {sorted(names)}")


def _cut(stage: CutStage[Any], path: Path, facts: SourceFacts) -> tuple[list[Span], dict[str, Any]]:
    detection = Detection(str(path), facts, stage, ViewSampler(facts, {}))
    found = [span for spans in detection.spans() for span in spans]
    return found, {name: value for name, value in detection.summary().items() if name not in _ENGINE_COLUMNS}


def _check_probe_stage(stage: ProbeStage[Any], folder: Path, broken: Broken) -> None:
    path = folder / "pan.mp4"
    write_video(path, moving_texture(30, 160, 90, (1.0, 0.0)), _RATE_FPS)
    source = SourceFile(str(path), str(path), "0" * 64, path.stat().st_size)
    facts = stage.probe(source)
    broken.expect(facts == stage.probe(source), "finds other facts the second time")
    broken.expect((facts.width_px, facts.height_px) == (160, 90), "finds the wrong size")
    broken.expect(facts.rate_fps == _RATE_FPS and facts.n_frames == 30, "finds the wrong rate or number of frames")
    names = {column.name for column in stage.columns} - _ENGINE_COLUMNS
    broken.expect(set(facts.to_cell()) <= names, f"facts without a column: {sorted(set(facts.to_cell()) - names)}")
