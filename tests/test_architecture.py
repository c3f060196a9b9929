"""Ratchets: what keeps the house small. Lists of exceptions may only shrink."""

from __future__ import annotations

import ast
import gc
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAX_FILE_LINES = 399
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
MEDIAN_FUNCTION_LINES = 12

LONG_FILES = {"tests/test_export.py", "tests/test_select.py"}
LONG_FUNCTIONS: set[str] = set()
MANY_PARAMETERS = {
    "curate/cli/plan.py:plan",
    "curate/cli/run.py:run",
    "curate/cli/sample.py:sample_command",
    "curate/cli/train.py:train_command",
    "tests/media/test_views.py:write_patches",
}
BROAD_EXCEPTS = {"curate/stage.py:boundary"}

HOSTS = {"www.apache.org", "arxiv.org", "www.w3.org", "host", "127.0.0.1"}
"""Hosts that may stand in a URL: of the licence, of papers, of the name of SVG, and those that are nobody's."""

_OTHERS = ("pypi", "org"), ("pythonhosted", "org"), ("huggingface", "co"), ("anaconda", "org"), ("docker", "io")
NEVER = tuple(".".join(parts) for parts in _OTHERS)
"""Which index or hub a user takes, pip and the model cards decide."""


def tracked(suffix: str = "") -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted(name for name in listed if name.endswith(suffix) and (ROOT / name).is_file())


def source(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYTHON = tracked(".py")


Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    """Every module parsed, without looking for garbage meanwhile: that took most of the time, and there is none."""
    gc.disable()
    try:
        return {name: ast.parse(source(name)) for name in PYTHON}
    finally:
        gc.enable()


@cache
def functions(name: str) -> list[Function]:
    return list(functions_in(trees()[name]))


def functions_in(node: ast.AST) -> Iterator[Function]:
    """Those that a statement holds, at any depth: no expression holds one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from functions_in(child)


def n_lines(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def n_parameters(node: Function) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len(named) - (bool(named) and named[0].arg in {"self", "cls"})


def test_files_stay_short():
    assert {name for name in PYTHON if len(source(name).splitlines()) > MAX_FILE_LINES} == LONG_FILES


def test_functions_stay_short():
    found = {f"{name}:{f.name}" for name in PYTHON for f in functions(name) if n_lines(f) > MAX_FUNCTION_LINES}
    assert found == LONG_FUNCTIONS


def test_the_middle_function_of_the_package_is_short():
    lengths = sorted(n_lines(f) for name in PYTHON if name.startswith("curate/") for f in functions(name))
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION_LINES


def test_functions_take_few_parameters():
    found = {f"{name}:{f.name}" for name in PYTHON for f in functions(name) if n_parameters(f) > MAX_PARAMETERS}
    assert found == MANY_PARAMETERS


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in caught)


def test_one_place_alone_catches_everything():
    found = {
        f"{name}:{function.name}"
        for name in PYTHON
        for function in functions(name)
        for node in ast.walk(function)
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    }
    assert found == BROAD_EXCEPTS


def test_every_module_says_what_it_is():
    modules = [name for name in PYTHON if name.startswith("curate/")]
    assert [name for name in modules if not ast.get_docstring(trees()[name])] == []


def texts() -> Iterator[tuple[str, str]]:
    for name in tracked():
        try:
            yield name, source(name)
        except UnicodeDecodeError:
            continue


def test_no_file_names_a_host_of_somebody_elses():
    found = {
        (name, match[1])
        for name, text in texts()
        for match in re.finditer(r"https?://(?:[^/@\s]*@)?([A-Za-z0-9.-]+)", text)
        if match[1] not in HOSTS
    }
    assert found == set()
    assert {(name, host) for name, text in texts() for host in NEVER if host in text.lower()} == set()


def test_no_file_names_a_place_on_somebodys_machine():
    path = re.compile(r"(?<![\w.$}~*-])/(?:home|root|work|Users|mnt|tmp)/\w+")
    found = {(name, match[0]) for name, text in texts() for match in path.finditer(text)}
    assert found == set()


def test_a_checkout_finds_its_own_recipes_and_cards():
    assert found_by(ROOT) == {
        "pipelines": [str(ROOT / "pipelines"), sorted(path.stem for path in (ROOT / "pipelines").glob("*.yaml"))],
        "models": [str(ROOT / "models"), sorted(path.stem for path in (ROOT / "models").glob("*.yaml"))],
    }


def found_by(place: Path) -> dict[str, list]:
    """Which data folders, recipes and cards the package at this place finds, asked in another process."""
    code = f"""
import json, sys
sys.path.insert(0, {str(place)!r})
from curate.datafiles import find_data_dir, recipe_files
from curate.weights.cards import all_cards
cards = sorted(card.name for card in all_cards())
found = {{"pipelines": [str(find_data_dir("pipelines")), sorted(recipe_files())]}}
print(json.dumps({{**found, "models": [str(find_data_dir("models")), cards]}}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=place.parent)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("curate_video-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_carries_the_package_recipes_and_cards_and_nothing_else(wheel):
    names = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    package = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    wanted = {name for name in tracked() if name.startswith("curate/")}
    wanted |= {f"curate/_data/{name}" for name in tracked() if name.startswith(("pipelines/", "models/"))}
    assert package == wanted
    (about,) = {name.split("/")[0] for name in names - package}
    assert "curate = curate.cli.main:main" in (wheel / about / "entry_points.txt").read_text()
    assert any(name.endswith("LICENSE") for name in names)


def test_an_installed_package_finds_the_same_recipes_and_cards(wheel):
    here, installed = found_by(ROOT), found_by(wheel)
    for kind in ("pipelines", "models"):
        assert installed[kind] == [str(wheel / "curate" / "_data" / kind), here[kind][1]]
        for path in (ROOT / kind).glob("*.yaml"):
            assert (wheel / "curate" / "_data" / kind / path.name).read_bytes() == path.read_bytes()
