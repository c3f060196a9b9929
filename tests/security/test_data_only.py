"""Recipes and cards are data: nothing of theirs is executed, and none blows up. Ratchets hold the package to it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cli_kit import RECIPE, curate

from curate.datafiles import MAX_YAML_BYTES, MAX_YAML_DEPTH, MAX_YAML_NODES, parse_yaml
from curate.errors import ConfigError
from curate.recipe import load_recipe, parse_recipe
from curate.weights import cards

ROOT = Path(__file__).parents[2]

OBJECTS = (
    "!!python/object/apply:os.system ['touch MARK']",
    "!!python/object/new:subprocess.Popen [['touch', 'MARK']]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!!python/object/apply:builtins.open ['MARK', 'w']",
)


def laughs(levels: int) -> str:
    """A YAML text that stands for ten to the power of ``levels`` values."""
    lines = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("value", OBJECTS)
@pytest.mark.parametrize("how", ["recipe", "override", "card"])
def test_no_object_is_made_from_yaml(value, how, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    value = value.replace("MARK", str(mark))
    with pytest.raises(ConfigError, match="is not YAML"):
        if how == "recipe":
            parse_recipe(RECIPE.replace("name: small\nstages", f"name: {value}\nstages"), "test")
        elif how == "override":
            parse_recipe(RECIPE, "test", [f"cut.min_len_s={value}"])
        else:
            (tmp_path / "evil.yaml").write_text(f"name: {value}")
            monkeypatch.setattr(cards, "find_data_dir", lambda _kind: tmp_path)
            cards.load_card("evil")
    assert not mark.exists()


BOMBS = {
    "aliases": laughs(9),
    "merged aliases": "a: &a {k: 1}\n" + "\n".join(f"{c}: &{c} {{<<: [*a, *a]}}" for c in "bcdef") + "\n" + laughs(9),
    "alias of itself": "a: &a [*a]",
    "depth": "[" * 100_000,
    "depth of maps": "{a: " * 10_000,
    "values": f"[{'1,' * (MAX_YAML_NODES + 1)}]",
    "size": "#" * (MAX_YAML_BYTES + 1),
    "digits": f"a: {'9' * 5000}",
    "no date": "a: 2020-13-45",
    "no text": "a: \x00",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_grows(name):
    with pytest.raises(ConfigError):
        parse_yaml(BOMBS[name], "test")


def test_what_people_write_is_read():
    assert parse_yaml("a: &x {q: 1}\nb: {<<: *x, r: [*x]}", "test") == {"a": {"q": 1}, "b": {"q": 1, "r": [{"q": 1}]}}
    assert parse_yaml("[" * MAX_YAML_DEPTH + "]" * MAX_YAML_DEPTH, "test")
    for path in [*(ROOT / "pipelines").rglob("*.yaml"), *(ROOT / "models").rglob("*.yaml")]:
        assert parse_yaml(path.read_text(), path.name)


def test_a_giant_recipe_file_is_refused_without_reading_it_all(tmp_path):
    path = tmp_path / "giant.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_recipe(str(path))


def test_a_bomb_is_one_clear_error_of_the_command(tmp_path):
    path = tmp_path / "bomb.yaml"
    path.write_text(laughs(9))
    ended = curate("recipes", "validate", path)
    assert ended.status == 2
    assert ended.err.startswith(f"Error {path}: holds more than {MAX_YAML_NODES} values")


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/b", ".hidden", "a\nb"])
@pytest.mark.parametrize(("old", "new"), [("  name: small", "  name: NAME"), ("{caption", "{name: NAME, caption")])
def test_names_in_a_recipe_cannot_lead_out_of_the_corpus(old, new, name):
    assert RECIPE.count(old) == 1
    with pytest.raises(ConfigError, match="name"):
        parse_recipe(RECIPE.replace(old, new.replace("NAME", repr(name))), "test")


def calls(name: str) -> list[tuple[str, ast.Call]]:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


PACKAGE = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "curate").rglob("*.py"))
FORBIDDEN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.full_load"}
FORBIDDEN |= {"yaml.unsafe_load", "yaml.load_all", "subprocess.getoutput", "marshal.loads", "shelve.open"}
FORBIDDEN |= {"tarfile.extractall", "joblib.load", "dill.loads", "cloudpickle.loads"}
PICKLES = {
    "curate/engine/ray_engine.py",  # between workers of one run
    "curate/engine/ray_writer.py",  # the same
    "curate/isolation/child.py",  # tasks, from our own parent
    "curate/testing/contract.py",  # what it pickled itself
}
"""Where pickles are read: never from a file, a download or an input."""
PROCESSES = {"curate/weights/pypi.py", "curate/isolation/sandbox.py"}


def test_nothing_executes_text():
    found = {(name, called) for name in PACKAGE for called, _ in calls(name) if called in FORBIDDEN}
    assert found == set()


def test_no_process_is_started_through_a_shell():
    started = ("subprocess.", "os.exec", "os.spawn", "pty.", "asyncio.create_subprocess")
    places = {name for name in PACKAGE for called, _ in calls(name) if called.startswith(started)}
    assert places <= PROCESSES
    for name in places:
        for called, call in calls(name):
            if called.startswith(started):
                assert not any(word.arg == "shell" for word in call.keywords)
                assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), "a list of arguments, no string"


def test_no_pickle_is_read_from_a_file_or_a_download():
    found = {name for name in PACKAGE for called, _ in calls(name) if called in {"pickle.load", "pickle.loads"}}
    assert found <= PICKLES
    for name in PACKAGE:
        for called, call in calls(name):
            said = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert called != "torch.load" or said.get("weights_only") == "True", name
            assert called not in {"np.load", "numpy.load"} or said.get("allow_pickle", "False") == "False", name


def test_nothing_writes_csv_or_html():
    """What spreadsheets and browsers execute is not written; a report that is needs one function that escapes."""
    found = set()
    for name in PACKAGE:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            found |= {(name, each) for each in names if each.split(".")[0] in {"html", "jinja2", "csv"}}
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {"csv.writer", "csv.DictWriter", "df.to_csv"}:
                found.add((name, ast.unparse(node)))
    assert found == {("curate/ingest/lists.py", "csv")}  # reads
