"""What the site makes of the pages' Markdown.

Links to files of the repository outside of docs/ become their names: on the repository they lead somewhere, the site
has no such pages and names no host where they could be. Commands are coloured as a shell's, outputs look like outputs.
A bar within code of a table needs no backslash here, and what the tests do not run says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_FENCES = {"```console": "```bash", "```": "``` { .text .no-copy .output }"}
NOT_RUN = {
    "GPU": "wants a GPU",
    "cluster": "wants machines, or an object store, that are there",
    "no cluster": "wants Docker, Kubernetes or Slurm; the files, images and options that it names are checked",
    "another machine": "goes on where this machine is not",
    "hub weights": "wants weights of a model hub, or checkpoints of that size",
    "installs": "changes the environment",
    "minutes": "takes more than 20 s; `make docs-check` runs it",
    "hours": "takes hours",
    "publishing": "would publish something",
}
"""Why the tests do not run a block, by what its page says of it."""

_NOT_RUN = re.compile(r"^<!-- not run: (.*) -->$", re.MULTILINE)
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text as the site has it."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link[2]))
        if target.is_relative_to(ROOT / "docs") or not target.exists():
            return link[0]  # MkDocs checks it
        name = f"`{target.relative_to(ROOT)}`"
        return name if link[1].strip("`/") in name else f"{link[1]} ({name})"

    told = _NOT_RUN.sub(lambda why: f"<small>Not run by the tests: it {NOT_RUN[why[1]]}.</small>\n", markdown)
    return "\n".join(_fenced(_LINK.sub(named, told).splitlines()))


def _fenced(lines: list[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        is_fence = line.lstrip().startswith("```")
        if not inside and line.startswith("|"):
            yield _CODE.sub(lambda code: code[0].replace("\\|", "|"), line)
        else:
            yield line.replace(line.strip(), _FENCES[line.strip()]) if _opens(line, inside) else line
        inside ^= is_fence


def _opens(line: str, inside: bool) -> bool:
    return not inside and line.strip() in _FENCES
