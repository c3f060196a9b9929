"""docs/security.md names a test for each threat, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from curate.datafiles import MAX_YAML_DEPTH, MAX_YAML_NODES
from curate.ingest.tars import MAX_COLUMNS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| Threat")]
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def functions_of(file: str) -> set[str]:
    """Names of the test functions of every file of this name."""
    found = [path for path in (ROOT / "tests").rglob(file) if path.is_file()]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in found]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("|")[1].strip()[:40])
def test_every_threat_names_its_tests(line):
    threat, defence, tests = re.split(r"(?<!\\)\|", line)[1:4]
    assert threat.strip() and defence.strip()
    named = NAMED.findall(tests)
    assert named
    for file, function in named:
        assert function in functions_of(file), f"{file} has no {function}"


def test_there_are_threats_of_every_kind():
    assert len(LINES) > 20
    assert len(re.findall(r"^## ", TEXT, re.MULTILINE)) >= 6


def test_limits_are_those_of_the_code():
    assert f"{MAX_YAML_NODES:,} values, {MAX_YAML_DEPTH} levels" in TEXT
    assert f"{MAX_COLUMNS} columns" in TEXT
