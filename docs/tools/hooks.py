"""What the site needs beyond Markdown: links to files of the repository outside of docs/ become their names.

On the repository these links lead somewhere; the site has no such pages and names no host where they could be.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
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

    return _LINK.sub(named, markdown)
