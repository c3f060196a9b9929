"""The yardstick of `make demo-train`: what a run's log must show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curate.errors import UsageError
from curate.testing.learning_check import Learning, main
from curate.train.logs import LOG

GOOD = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


def run(folder: Path, losses: list[float], held_out: list[float]) -> str:
    """A run's folder, with a log as `curate.train.logs` writes it."""
    folder.mkdir()
    rows = [{"step": 10 * at, "loss": loss} for at, loss in enumerate(losses, 1)]
    rows[0:0] = [{"step": 0, "held_out/mean": loss} for loss in held_out[:1]]
    rows += [{"step": 10 * len(losses), "held_out/mean": loss} for loss in held_out[1:]]
    (folder / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.mark.parametrize(
    ("losses", "held_out", "words"),
    [
        (GOOD, [1.0, 0.9, 0.8], ""),
        ([1.0, 0.01, 0.98, 1.01], [1.0, 0.1], "training loss is not below 0.5"),
        ([0.1, 0.1, 0.1, 0.6], [1.0, 0.1], "training loss is not below 0.5"),
        (GOOD, [0.9, 0.1, 0.81], "held-out loss is not below"),
        ([0.1, float("nan")], [1.0, 0.1], "training loss is not below 0.5"),
        (GOOD, [1.0, float("nan")], "held-out loss is not below"),
    ],
)
def test_a_run_that_did_not_learn_fails_among_others_that_did(tmp_path, capsys, losses, held_out, words):
    runs = [run(tmp_path / "good", GOOD, [1.0, 0.2]), run(tmp_path / "other", losses, held_out)]
    assert main(runs) == (1 if words else 0)
    _, good, other = capsys.readouterr().out.splitlines()
    assert good == "good      80          0.250  1.000  0.200"
    assert other.startswith("other ")
    assert words in other
    assert ("FAILED" in other) == bool(words)


def test_a_run_without_the_numbers_is_refused(tmp_path):
    with pytest.raises(UsageError, match="0 training losses and 0 held-out ones"):
        main([str(tmp_path)])
    with pytest.raises(UsageError, match="8 training losses and 1 held-out"):
        Learning.of(Path(run(tmp_path / "once", GOOD, [1.0])))
