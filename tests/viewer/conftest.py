"""One corpus to look at, made once; tests that change it make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from view_kit import Seen, make_corpus, opened


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Seen:
    """Nobody may change it."""
    return make_corpus(tmp_path_factory.mktemp("viewed"))


@pytest.fixture(scope="session")
def view(made) -> Iterator[TestClient]:
    with opened(made.corpus) as client:
        yield client


@pytest.fixture
def own(made, tmp_path) -> Seen:
    """A copy that may be changed."""
    return made.copy(tmp_path / "corpus")
