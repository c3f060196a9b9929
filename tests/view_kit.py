"""A corpus of real little films with captions, scores and names that strangers chose, and its view."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from export_kit import ExportKit
from starlette.testclient import TestClient

from curate.select import SelectConfig, select
from curate.tables import Corpus
from curate.testing.footage import moving_texture, write_video
from curate.viewer.films import Films
from curate.viewer.library import Library
from curate.viewer.server import make_app

HOSTILE = '<img src=x onerror="window.pwned=1"></script><script>window.pwned=1</script>\u202egpj.exe\' OR 1=1 --'
"""What a caption, a text read in the picture and a name may hold."""

FILE_NAME = "<svg onload=window.pwned=1>&quot;'{{7*7}}.mp4"
LENGTHS = (8, 10, 12, 14, 36)
"""Frames of the shots of a.mp4, at 24 a second."""


class ViewKit(ExportKit):
    """A kit with on-screen text too, and a recipe that says what it lacks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stages["text"] = {"area_max": pa.float64(), "words": pa.list_(pa.string())}
        self.stages["similarity"] = {"all": pa.list_(pa.float64()), "embedding": pa.list_(pa.float32())}

    def manifest(self, run_id: str, complete: bool) -> dict[str, Any]:
        """With what no other stage does."""
        return {**super().manifest(run_id, complete), "lacks": {"tracking": HOSTILE}}


@dataclass(frozen=True)
class Seen:
    """A corpus and its clips: of a.mp4 in order, then the one with the odd name, then the one whose film is gone."""

    corpus: Corpus
    a: list[str]
    odd: str
    gone: str

    def copy(self, folder: Path) -> Seen:
        """The same over another copy of the tables; the films are the same files."""
        return replace(self, corpus=Corpus(str(shutil.copytree(self.corpus.root.path, folder))))

    def film(self, name: str) -> str:
        """Where a film lies."""
        return str(Path(self.corpus.root.path).parent / "films" / name)

    @property
    def ids(self) -> list[str]:
        return [*self.a, self.odd, self.gone]


def make_corpus(folder: Path) -> Seen:
    """A corpus below the folder; one film is removed after it was read."""
    films = folder / "films"
    films.mkdir()
    shots = (moving_texture(n, 160, 90, (2.0, 0.5), seed) for seed, n in enumerate(LENGTHS))
    write_video(films / "a.mp4", chain(*shots), Fraction(24))
    write_video(films / FILE_NAME, moving_texture(30, 96, 160, (1.0, 0.0), 9), Fraction(24))
    write_video(films / "gone.mp4", moving_texture(24, 96, 64, (0.0, 1.0), 8), Fraction(24))
    kit = ViewKit(folder / "corpus")
    ends = [sum(LENGTHS[:n]) for n in range(len(LENGTHS) + 1)]
    a = kit.film(films / "a.mp4", ends)
    (odd,) = kit.film(films / FILE_NAME, [0, 30])
    (gone,) = kit.film(films / "gone.mp4", [0, 24])
    for number, clip in enumerate([*a, odd]):
        words = [HOSTILE, "SALE"] if clip == odd else [["EXIT"], [], ["Exit 7"], [], []][number]
        kit.cell("text", clip, area_max=0.01 * number, words=words)
        kit.cell("similarity", clip, all=[0.1 * number, 0.3], embedding=[0.5] * 700)
    kit.failed("text", gone, message="s3://user:secret@host/x broke")
    kit.cells["caption.template"][-2]["caption"] = HOSTILE
    kit.cells["quality"][0]["active_x_px"] = None
    corpus = kit.finish()
    corpus.root.child("selections", "best").remove()
    conditions = [{"column": "text.area_max", "max": 0.025, "on_failed": "drop"}]
    config = {"name": "strict", "conditions": conditions, "dedup": {"method": "none"}}
    select(corpus, SelectConfig.model_validate(config))
    (films / "gone.mp4").unlink()
    return Seen(corpus, a, odd, gone)


@contextmanager
def opened(corpus: Corpus, *, most_bytes: int = 1 << 30, **guard: object) -> Iterator[TestClient]:
    """A client of the view of a corpus, as the browser on this machine would be one."""
    library = Library(corpus)
    films = Films(library, most_bytes)
    arguments = {"names": frozenset(), "loopback": True, "token": "", "port": 1, **guard}
    try:
        with TestClient(make_app(library, films, arguments, by="me"), base_url="http://127.0.0.1:1") as client:
            client.films = films
            yield client
    finally:
        films.close()
        library.close()
