from pathlib import Path

import pytest

from curate.testing.footage import moving_texture, write_video


@pytest.fixture(scope="session")
def bucket(tmp_path_factory) -> Path:
    """Two films of five clips in all, and one that is none."""
    folder = tmp_path_factory.mktemp("bucket")
    write_video(folder / "a.mp4", moving_texture(75, 96, 64, (1, 0), seed=1))
    write_video(folder / "b.mp4", moving_texture(45, 96, 64, (0, 1), seed=2))
    (folder / "bad.mp4").write_bytes(b"not a video at all")
    return folder
