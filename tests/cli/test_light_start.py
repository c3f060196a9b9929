from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "av", "cv2", "rapidocr", "onnxruntime", "scenedetect", "duckdb", "pyarrow", "numpy")
HEAVY += ("diffusers", "transformers", "safetensors")
PROGRAM = f"""
import contextlib, io, sys
from curate.cli.main import app
with contextlib.redirect_stdout(io.StringIO()) as printed:
    app(sys.argv[1:], standalone_mode=False)
assert printed.getvalue()
print([name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "command",
    [
        *([name, "--help"] for name in ("run", "sample", "latents")),
        ["--help"],
        ["recipes", "list"],
        ["models", "list"],
    ],
)
def test_commands_that_only_say_something_import_nothing_heavy(command):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
