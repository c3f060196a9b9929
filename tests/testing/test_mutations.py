"""The kit of broken files: the same seed gives the same files, and each damages what it says."""

import pytest

from curate.testing.monsters import MONSTERS, monster_files
from curate.testing.mutations import KINDS, mutation, mutations, seed_files

FEW = ("h264.mp4", "h264_b.mp4", "vp9.webm", "mpeg2.mpg", "raw.h264")
LARGEST_BYTES = 300_000


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return seed_files(tmp_path_factory.mktemp("seeds"), FEW)


def test_seed_files_are_the_same_every_time(seeds, tmp_path):
    assert [path.name for path in seeds] == sorted(FEW)
    again = seed_files(tmp_path, FEW)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in seeds]


def test_what_is_there_is_not_made_again(seeds):
    times = [path.stat().st_mtime_ns for path in seeds]
    assert [path.stat().st_mtime_ns for path in seed_files(seeds[0].parent, FEW)] == times


def test_all_seed_files_are_small(tmp_path):
    paths = seed_files(tmp_path)
    assert len(paths) >= 80
    assert len({path.suffix for path in paths}) >= 25
    assert all(0 < path.stat().st_size < LARGEST_BYTES for path in paths)


def test_the_same_seed_gives_the_same_damage(seeds):
    first, second = (list(mutations(seeds, 60, seed=3)) for _ in range(2))
    assert first == second
    assert first != list(mutations(seeds, 60, seed=4))
    assert [mutation(seeds, number, 3) for number in range(60)] == first
    assert list(mutations(seeds, 10, seed=3, first=50)) == first[50:]


def test_every_kind_meets_every_seed_file(seeds):
    made = list(mutations(seeds, len(seeds) * len(KINDS), seed=1))
    assert {(each.kind, each.seed_name) for each in made} == {(kind, path.name) for kind in KINDS for path in seeds}
    assert len({each.name for each in made}) == len(made)
    assert made[7].name == f"000007-{made[7].kind}-{made[7].seed_name}"


def test_damage_is_done(seeds):
    whole = {path.name: path.read_bytes() for path in seeds}
    made = list(mutations(seeds, 300, seed=1))
    assert sum(each.data != whole[each.seed_name] for each in made) > 270
    assert all(len(each.data) < len(whole[each.seed_name]) for each in made if each.kind == "truncated")
    assert all(
        len(each.data) == len(whole[each.seed_name]) for each in made if each.kind in ("bits", "header", "sizes")
    )


def test_monsters_are_small_and_named(tmp_path):
    paths = monster_files(tmp_path)
    assert [path.name for path in paths] == list(MONSTERS)
    assert max(path.stat().st_size for path in paths) < 5 << 20
    assert set(MONSTERS.values()) == {"ok", "failed", "either"}
    (again,) = monster_files(tmp_path / "again", ["pts_looping.ivf"])
    assert again.read_bytes() == (tmp_path / "pts_looping.ivf").read_bytes()
