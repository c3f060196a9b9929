"""Work on files from strangers in a child process that can be killed (docs/decisions/0008-killable-decode.md)."""

from curate.isolation.child import told
from curate.isolation.sandbox import Limits, Sandbox, end_spare

__all__ = ["Limits", "Sandbox", "end_spare", "told"]
