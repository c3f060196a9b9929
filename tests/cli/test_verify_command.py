"""`curate verify` on a whole corpus: each kind of damage is named with its place, and nothing else is."""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from cli_kit import curate, run_args, tables

from curate.tables import STATUS, TIMES, Corpus, parquet_table, read_parquet, write_part
from curate.verify import leftovers, verify, verify_runs, verify_selections, verify_tables


def problems(corpus: Path, *options: str) -> list[str]:
    """The lines that name a problem, less the path of the corpus."""
    ended = curate("verify", corpus, *options)
    kinds = "corpus|table|run|index|file|tar|sidecar|decode|taken_down|selection"
    lines = [line for line in ended.out.splitlines() if re.match(rf"({kinds}) ", line)]
    assert ended.status == (1 if lines else 0)
    return [line.replace(f"{corpus}/", "") for line in lines]


def every_file(corpus: Path) -> list[Path]:
    return sorted(path for path in corpus.rglob("*") if path.is_file() and path.name != "corpus.json")


def test_a_whole_corpus_has_no_problem(corpus):
    ended = curate("verify", corpus, "--deep")
    assert ended.status == 0
    told = "tables: whole, every part read\nruns: whole, all inputs and clips accounted for\nselections: whole\n"
    assert ended.out == told + "small: whole, every clip decoded\n"


def flip(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


DAMAGES = {
    "flipped bit": flip,
    "truncated": lambda data, draw: data[: draw.randrange(len(data))],
    "deleted": None,
    "longer": lambda data, draw: data + b"x",
}
LOOSE = ("manifest.json", "funnel.json", "index.json", STATUS, TIMES)
"""JSON without a digest of its own: a change is found where it breaks the form or a checked number."""


def looked_at(corpus: Path, part: str) -> list[str]:
    """Problems of one part of a corpus: what `curate verify` asks for it."""
    place = Corpus(str(corpus))
    checks = {"tables": (verify_tables, verify_runs), "runs": (verify_runs,), "selections": (verify_selections,)}
    found = [each for check in checks.get(part, ()) for each in check(place)]
    if part == "shards":
        found += verify(place, "small")
    return [f"{each.subject}: {each.message}" for each in found]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_is_named(corpus, damage):
    """One file after the other is damaged and restored."""
    draw = random.Random(1)
    for path in every_file(corpus):
        if path.name in LOOSE and damage in {"flipped bit", "longer"}:
            continue
        data, change = path.read_bytes(), DAMAGES[damage]
        path.unlink()
        if change:
            path.write_bytes(change(data, draw))
        part = path.relative_to(corpus).parts[0]
        if damage == "deleted" and path.name == "manifest.json":
            assert [each.what for each in leftovers(Corpus(str(corpus)))] == ["a run that goes on or did not end"]
        elif damage == "deleted" and path.name in {STATUS, TIMES}:
            assert not looked_at(corpus, part), "a run needs none"
        else:
            found = " ".join(looked_at(corpus, part))
            assert found, path
            # A part that is gone is told by what lacks; a selection and a shard set are named as a whole.
            assert damage == "deleted" or part not in {"tables", "runs"} or path.name in found, (path, found)
        path.write_bytes(data)
    assert problems(corpus) == []


@pytest.mark.parametrize(
    "below", ["tables", "tables/sources", "tables/cells/quality", "runs/*", "selections/small", "shards/small"]
)
def test_a_foreign_file_is_named(corpus, below):
    (folder,) = corpus.glob(below)
    (folder / "notes.txt").write_text("mine")
    (found,) = problems(corpus)
    assert "notes.txt" in found


def cells(corpus: Path, stage: str) -> Path:
    (folder,) = (corpus / "tables" / "cells" / stage).iterdir()
    return folder


def test_a_lost_part_of_each_table_is_told_by_what_it_lacks(corpus):
    """Nothing lists the parts of a table; a part that is gone shows in what other tables promise."""
    lost = {
        "clips": ("promises 1 clips, the table has 0", "clips"),
        "cells/cut": ("have no cut cell", "cut"),
        "cells/probe": ("have no probe cell", "probe"),
        "cells/quality": ("have no quality cell, though no gate shuts them out", "quality"),
        "sources": ("are not in the sources table", "sources"),
    }
    for table, (told, _) in lost.items():
        for part in sorted((corpus / "tables" / table).rglob("part-*.parquet")):
            data = part.read_bytes()
            rows = parquet_table(data).to_pylist()
            part.unlink()
            if any(row.get("outcome", "ok") == "ok" for row in rows):
                found = looked_at(corpus, "tables")
                assert any(
                    re.sub(r"promises \d", "promises 1", told) in re.sub(r"promises \d", "promises 1", line)
                    for line in found
                ), (table, found)
            part.write_bytes(data)


@pytest.mark.parametrize("table", ["sources", "clips", "cells/probe", "cells/cut", "cells/quality"])
def test_a_damaged_table_that_is_removed_is_computed_again(corpus, made, bucket, recipe, table):
    """The way out that docs/reliability.md gives: what is missing from the tables is what a run does."""
    parts = sorted((corpus / "tables" / table).rglob("part-*.parquet"))
    for part in parts:
        part.unlink()
    assert curate("run", bucket, *run_args(recipe, corpus)).status == 0
    assert tables(corpus) == tables(made[0])
    assert problems(corpus) == []


def test_a_part_of_another_schema_is_named(corpus):
    folder = next((corpus / "tables" / "clips").iterdir())
    table = read_parquet(Corpus(str(corpus)).root.child(*folder.relative_to(corpus).parts, next(folder.iterdir()).name))
    place = Corpus(str(corpus)).clips(folder.name)
    write_part(place, table.drop_columns(["n_frames"]))
    write_part(place, table.set_column(3, "start_pts", table["start_pts"].cast("double")))
    found = " ".join(problems(corpus))
    assert "lacks the columns n_frames" in found
    assert "holds start_pts as double, the table has int64" in found


def test_cells_of_unknown_clips_and_repeated_rows_are_harmless(corpus):
    """What a killed run or a compaction that died leaves: verification has nothing to say."""
    folder = cells(corpus, "quality")
    place = Corpus(str(corpus)).cells("quality", folder.name)
    rows = read_parquet(place.child(sorted(path.name for path in folder.iterdir())[0]))
    write_part(place, rows.set_column(0, "key", [["f" * 32] * rows.num_rows]))
    write_part(
        place,
        rows.set_column(rows.schema.get_field_index("attempt"), "attempt", [[7] * rows.num_rows]).cast(rows.schema),
    )
    assert problems(corpus) == []


def test_numbers_that_do_not_agree_are_named(corpus):
    (manifest,) = corpus.glob("runs/*/manifest.json")
    told = json.loads(manifest.read_text())
    told["counts"]["inputs"]["ok"] += 1
    manifest.write_text(json.dumps(told))
    funnel = corpus / "selections/small/funnel.json"
    told = json.loads(funnel.read_text())
    told["clips"]["kept"] += 1
    funnel.write_text(json.dumps(told))
    found = problems(corpus)
    assert ["inputs.parquet: holds" in found[0], "clips kept, funnel.json says" in found[1]] == [True, True]


LEFT = {
    "tables/sources/.part-1.parquet.0f.tmp": "a file whose writing did not end",
    "selections/small/.selection-x1/selection.parquet": "a file whose writing did not end",
    "shards/.small.0123456789abcdef/set/64x64x8/000000.tar": "an export that did not end",
    "shards/.small.replaced/64x64x8/000000.tar": "a replaced shard set",
    "runs/20260101T000000.000000Z-abcdef/recipe.yaml": "a run that goes on or did not end",
}


def leave(corpus: Path, age_s: float) -> None:
    for name in LEFT:
        path = corpus / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s,) * 2)


def test_what_interrupted_work_left_is_listed_and_removed_once_it_is_old(corpus):
    before = every_file(corpus)
    leave(corpus, age_s=3600)
    young = curate("verify", corpus, "--clean")
    assert young.status == 0
    assert young.out.count("left over ") == len(LEFT)
    assert young.out.count("kept: it may belong to something that goes on") == len(LEFT) - 1
    assert young.out.count("its recipe explains its failures") == 1
    leave(corpus, age_s=2 * 24 * 3600)
    told = curate("verify", corpus)
    assert told.out.count("`--clean` removes it") == len(LEFT) - 1
    for what in LEFT.values():
        assert what in told.out
    assert curate("verify", corpus, "--clean").out.count("removed") == len(LEFT) - 1
    assert [path for path in every_file(corpus) if path.name != "recipe.yaml"] == [
        path for path in before if path.name != "recipe.yaml"
    ]


def test_a_clock_that_went_back_keeps_everything(corpus):
    leave(corpus, age_s=-10 * 24 * 3600)
    assert "removed" not in curate("verify", corpus, "--clean").out


def test_a_replaced_set_stays_while_there_is_no_other(corpus):
    """An export killed between the two renames of its last step."""
    (corpus / "shards/small").rename(corpus / "shards/.small.replaced")
    for path in (corpus / "shards").rglob("*"):
        os.utime(path, (0, 0))
    assert "the only whole copy of shards/small" in curate("verify", corpus, "--clean").out
    assert (corpus / "shards/.small.replaced/index.json").exists()
