"""Files that the project may not carry, in folders of whoever has them: `make test-real FOOTAGE=... WEIGHTS=...`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _folder(name: str) -> Path:
    path = Path(os.environ.get(name) or "none")
    if not path.is_dir():
        raise pytest.UsageError(f"{name} is no folder. Run `make test-real FOOTAGE=folder WEIGHTS=folder`")
    return path.absolute()


@pytest.fixture(scope="session")
def footage() -> Path:
    """A folder with several films of several shots each."""
    return _folder("FOOTAGE")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """A folder with the files of the two aesthetic heads, under the names that their cards have."""
    return _folder("WEIGHTS")
