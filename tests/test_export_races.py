"""Two exports of one selection at once: both end well, and the set in place is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_kit import ExportKit, all_bytes, config

from curate.bulk import inline_map
from curate.export import export
from curate.testing.footage import moving_texture, write_video
from curate.verify import verify


@pytest.fixture
def corpus(tmp_path):
    write_video(tmp_path / "a.mp4", moving_texture(40, 192, 108, (2, 1), 1), gop=10)
    kit = ExportKit(tmp_path / "corpus")
    kit.film(tmp_path / "a.mp4", [0, 10, 20, 30, 40])
    return kit.finish()


@pytest.mark.parametrize("earlier", [False, True])
def test_an_export_that_another_one_overtook_takes_its_set(corpus, earlier):
    """The other one finishes, and removes the common staging folder, when this one has written all but the index."""
    if earlier:
        export(corpus, "best", config(mode="encode"))

    def overtaken(function, items):
        yield from inline_map(function, items)
        export(corpus, "best", config(mode="auto"))

    report = export(corpus, "best", config(mode="auto"), run_map=overtaken)
    assert report.n_clips == 4
    assert verify(corpus, "best", deep=True) == []
    alone = all_bytes(corpus.shards("best"))
    export(corpus, "best", config(mode="auto"))
    assert all_bytes(corpus.shards("best")) == alone


def test_the_set_in_place_is_put_back_when_the_new_one_was_taken_away(corpus, monkeypatch):
    """Both are at the last step: this one has just moved the other's set aside, and finds nothing to put there."""
    options = config(mode="auto")
    export(corpus, "best", config(mode="encode"))
    whole, true = [], Path.rename

    def rename(self, target):
        if Path(target).name == ".best.replaced" and not whole:
            whole.append(True)
            export(corpus, "best", options)
        return true(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    report = export(corpus, "best", options)
    assert report.n_clips == 4
    assert verify(corpus, "best", deep=True) == []
    shards = Path(corpus.root.child("shards").path)
    assert list(shards.iterdir()) == [shards / "best"]
