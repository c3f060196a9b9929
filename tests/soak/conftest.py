from __future__ import annotations

import pytest
from soak.kill_kit import Range


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Range(tmp_path_factory.mktemp("kills") / "range", videos=6)
    yield made
    made.close()
