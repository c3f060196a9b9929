"""300 damaged files and all monsters through one real run. The long form is tests/soak/fuzz_long.py."""

import pytest
from fuzz_kit import check, fuzz, write_mutations

from curate.testing.monsters import MONSTERS, monster_files
from curate.testing.mutations import KINDS, mutations, seed_files

N_MUTATIONS = 300
SEED = 4


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return seed_files(tmp_path_factory.mktemp("seeds"))


def test_damaged_files_of_every_container_and_codec(seeds, tmp_path):
    sources = write_mutations(tmp_path / "broken", mutations(seeds, N_MUTATIONS, SEED))
    ended = fuzz(sources, tmp_path / "corpus")
    check(ended, sources)
    outcomes = {(path.name.split("-")[1], ended.inputs[path.name].outcome) for path in sources}
    assert {kind for kind, outcome in outcomes if outcome == "failed"} == set(KINDS)
    assert {kind for kind, outcome in outcomes if outcome == "ok"} == set(KINDS)


def test_monsters(tmp_path):
    sources = monster_files(tmp_path / "monsters")
    ended = fuzz(sources, tmp_path / "corpus")
    check(ended, sources)
    wrong = [
        found for name, found in ended.inputs.items() if MONSTERS[name] != "either" and found.outcome != MONSTERS[name]
    ]
    assert not wrong


def test_whole_seed_files_are_read(seeds, tmp_path):
    ended = fuzz(seeds, tmp_path / "corpus")
    check(ended, seeds)
    refused = {name for name, found in ended.inputs.items() if found.outcome == "failed"}
    assert {ended.inputs[name].error_class for name in refused} <= {"NotMediaError", "NoVideoStreamError"}
    assert refused == REFUSED


REFUSED = {
    "anim.apng",
    "flash.swf",
    "gxf.gxf",
    "h261.h261",
    "roq.roq",
    "snow.nut",
    "speedhq.avi",
    "wtv.wtv",
}
"""Containers and codecs that `curate.media.container` leaves out on purpose."""
