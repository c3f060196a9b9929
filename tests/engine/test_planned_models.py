"""A worker whose model files are others than those that the run was planned with measures nothing. On Ray:
tests/e2e/test_ray_job.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from engine_kit import Luma, LumaConfig, open_clips, scored
from job_kit import Heard
from model_stages_kit import CutByModel, Dimmed, check_refused, digest, machine, planned_recipe, two_machines

from curate.engine.pipeline import Pipeline, build_pipeline
from curate.errors import MissingModelError
from curate.job import JobOptions, run_job
from curate.records import Cell, Outcome
from curate.stages.probe import Probe
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture
from curate.weights.store import check_planned, path_of

CUT = CutByModel.config_type()


def planned() -> Pipeline:
    return build_pipeline([Probe(Probe.config_type()), CutByModel(CUT), Luma(LumaConfig()), Dimmed(LumaConfig())])


def dimmed(pipe: Pipeline) -> list[Cell]:
    return list(scored(pipe, open_clips(pipe))["dimmed"].values())


def failed_alike(cells: list[Cell]) -> str:
    """The one message with which all cells failed, in a way that the next run tries again."""
    assert {cell.outcome for cell in cells} == {Outcome.FAILED}
    assert {cell.failure.error_class for cell in cells} == {"MissingModelError"}
    (message,) = {cell.failure.message for cell in cells}
    return message


def test_another_file_under_the_same_name_fails_with_both_digests(tmp_path, monkeypatch):
    machine(tmp_path / "driver", monkeypatch, dimmer="0.5", cutter="sharp")
    pipe, ours = planned(), digest("dimmer")
    assert [cell.values["mean"] for cell in dimmed(pipe)] == [0, 5, 10, 15]
    machine(tmp_path / "worker", monkeypatch, dimmer="9.0", cutter="sharp")
    message = failed_alike(dimmed(pipe))
    assert message == (
        f"on this machine 'w.txt' has sha256 {digest('dimmer')}, the run was planned with {ours}. "
        "Let CURATE_MODELS and CURATE_CARDS name the same folders on every machine, "
        "or ones that `curate models bundle` made where the run was started"
    )
    assert digest("dimmer") != ours


def test_the_same_file_from_another_store_is_as_good(tmp_path, monkeypatch):
    machine(tmp_path / "driver", monkeypatch, dimmer="0.5", cutter="sharp")
    pipe = planned()
    machine(tmp_path / "worker", monkeypatch, dimmer="0.5", cutter="other, and used elsewhere")
    assert [cell.values["mean"] for cell in dimmed(pipe)] == [0, 5, 10, 15]


def test_a_file_that_was_written_over_is_read_again_whatever_its_card_says(tmp_path, monkeypatch):
    """Its size is right, and so is the note of when it was last read."""
    machine(tmp_path / "store", monkeypatch, dimmer="0.5", cutter="sharp")
    pipe = planned()
    path = Path(path_of("dimmer", "w.txt"))
    path.write_text("9.0")
    assert "has sha256" in failed_alike(dimmed(pipe))
    path.write_text("0.5")
    assert [cell.outcome for cell in dimmed(pipe)] == [Outcome.OK] * 4


def test_a_file_that_the_hub_changed_between_two_first_fetches(tmp_path, monkeypatch):
    """Either machine trusts its own: the card says nothing of the digest."""
    stores = []
    for name, text in {"driver": "0.5", "worker": "0.7"}.items():
        kit = machine(tmp_path / name, monkeypatch, dimmer=text)
        found = digest("dimmer")
        (kit.cards / "dimmer.yaml").write_text(unsaid((kit.cards / "dimmer.yaml").read_text()))
        note = kit.models / "dimmer" / "found" / "w.txt.json"
        note.parent.mkdir()
        note.write_text(
            f'{{"sha256": "{found}", "size_bytes": 3, "sources": ["hf:org/model@main#w.txt"], "origin": "", '
            '"fetched_at": ""}'
        )
        stores.append((digest("dimmer"), {"dimmer/w.txt": digest("dimmer")}))
    (first, given), (second, own) = stores
    check_planned(own)
    with pytest.raises(MissingModelError, match=f"^dimmer: .*sha256 {second}, the run was planned with {first}"):
        check_planned(given)


def unsaid(card: str) -> str:
    """A card without digests, whose file comes from the model hub."""
    lines = [line for line in card.splitlines() if not line.strip(" -").startswith(("sha256", "size_bytes", "file:"))]
    return "\n".join(lines).replace("sources:", "sources: ['hf:org/model@main#w.txt']") + "\n"


def test_a_machine_without_the_card_or_the_file(tmp_path, monkeypatch):
    machine(tmp_path / "driver", monkeypatch, dimmer="0.5", cutter="sharp")
    pipe = planned()
    kit = machine(tmp_path / "worker", monkeypatch, dimmer="0.5")
    shutil.rmtree(kit.models)
    assert "Run `curate models fetch dimmer`" in failed_alike(dimmed(pipe))
    (kit.cards / "dimmer.yaml").unlink()
    assert "the run was planned with it: there is no such model" in failed_alike(dimmed(pipe))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "a.mp4"
    write_video(path, moving_texture(30, 96, 64, (1, 0), seed=1))
    return path


class Elsewhere(Heard):
    """From the moment that work is planned, models come from another store."""

    def __init__(self, models: Path, cards: Path) -> None:
        super().__init__()
        self.variables = {"CURATE_MODELS": str(models), "CURATE_CARDS": str(cards)}

    def planned(self, pass_number, works):
        os.environ.update(self.variables)


@pytest.mark.parametrize("changed", ["dimmer", "cutter"])
def test_nothing_is_written_under_a_fingerprint_of_another_model(tmp_path, monkeypatch, video, changed):
    worker, theirs, ours = two_machines(tmp_path, monkeypatch, changed)
    options = JobOptions(str(tmp_path / "corpus"), "inline", export=False)
    run_job([str(video)], planned_recipe(monkeypatch), options, Elsewhere(worker.models, worker.cards))
    check_refused(tmp_path / "corpus", changed, theirs, ours)
