"""`curate doctor`: what this machine has and lacks, with fixes."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import typer

from curate.cli.console import EXIT_ERROR, ending, out, plain
from curate.cli.models import DEFAULT_RECIPE, here, needed_cards
from curate.memory import machine_memory_bytes
from curate.packages import is_installed
from curate.units import format_bytes
from curate.weights.cards import all_cards
from curate.weights.ledger import model_dir
from curate.weights.store import FileStatus, glance

MIN_SCRATCH_BYTES = 2 << 30
MIN_SHM_BYTES = 1 << 30
OPTIONAL = {"s3fs": "s3:// (pip install 'curate-video[s3]')", "gcsfs": "gs:// (pip install 'curate-video[gcs]')"}
OPTIONAL |= {"aiohttp": "https:// (pip install 'curate-video[http]')"}
OPTIONAL |= {"huggingface_hub": "hf:// (pip install 'curate-video[hf]')"}


@dataclass(frozen=True)
class Finding:
    """One line: ``ok`` None is information, False needs the ``fix``."""

    what: str
    value: str
    ok: bool | None = None
    fix: str = ""


def doctor() -> None:
    """Say what this machine has and lacks; exit status 1 when the default recipe could not run.

    Example: `curate doctor`
    """
    with ending():
        findings = [*_machine(), *_decoders(), *_engine(), *_models(), *_optional()]
    for finding in findings:
        mark = {None: " ", True: "[green]✓[/]", False: "[red]✗[/]"}[finding.ok]
        fix = f"  → {plain(finding.fix)}" if finding.fix and finding.ok is False else ""
        out.print(f"{mark} {finding.what:<14} {plain(finding.value)}{fix}", soft_wrap=True)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(EXIT_ERROR)


def _machine() -> list[Finding]:
    scratch = Path(tempfile.gettempdir())
    free_bytes = shutil.disk_usage(scratch).free
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [
        Finding("python", f"{platform.python_version()} on {platform.platform()}", True),
        Finding("processors", f"{cpus}", True),
        Finding("memory", format_bytes(machine_memory_bytes()) if machine_memory_bytes() else "unknown"),
        Finding(
            "scratch",
            f"{scratch}, {format_bytes(free_bytes)} free",
            free_bytes >= MIN_SCRATCH_BYTES,
            "Free some space, or point TMPDIR at a larger disk",
        ),
    ]


def _decoders() -> list[Finding]:
    import av

    wanted = ["h264", "hevc", "vp9", "libdav1d", "mpeg4"]
    have = [name for name in wanted if name in av.codecs_available]
    missing = sorted(set(wanted) - set(have))
    encoder = "libx264" in av.codecs_available
    return [
        Finding("PyAV", f"{av.__version__}, decodes {', '.join(have)}", not missing, "Run `pip install -U av`"),
        Finding("encoder", "libx264" if encoder else "libx264 is missing", encoder, "Run `pip install -U av`"),
    ]


def _engine() -> list[Finding]:
    import ray

    found = [Finding("ray", ray.__version__, True)]
    shm = Path("/dev/shm")
    if shm.exists():
        free_bytes = shutil.disk_usage(shm).free
        text = f"{format_bytes(free_bytes)} free in shared memory"
        fix = "Give the container more shared memory (`--shm-size`); Ray falls back to disk, which is slower"
        found.append(Finding("object store", text, free_bytes >= MIN_SHM_BYTES or None, fix))
    nvidia = shutil.which("nvidia-smi")
    text = "found" if nvidia else "none; the `embedded` recipe needs none"
    found.append(Finding("GPU", text, True if nvidia else None))
    return found


def _models() -> list[Finding]:
    """The models of the default recipe, which must be here, and of the others those that are; from their sizes."""
    found = [Finding("model folder", str(model_dir()))]
    needed = {card.name for card in needed_cards(DEFAULT_RECIPE)}
    cards = [card for card in all_cards() if card.name in needed or here(card) != "no"]
    for card in cards:
        bad = {FileStatus.MISSING, FileStatus.WRONG}
        lacking = [f"{name} {status}" for name, status in glance(card).items() if status in bad]
        state = ", ".join(lacking) or f"{format_bytes(card.size_bytes)}, {here(card)}"
        found.append(Finding("model", f"{card.name}: {state}", not lacking, f"Run `curate models fetch {card.name}`"))
    others = [card.name for card in all_cards() if card not in cards]
    if others:
        found.append(Finding("models", f"not here: {', '.join(others)} (`curate models list`)"))
    return found


def _optional() -> list[Finding]:
    from curate.viewer.serve import PACKAGES

    storage = [
        Finding("storage", f"{place}: {'yes' if importlib.util.find_spec(name) else 'not installed'}")
        for name, place in OPTIONAL.items()
    ]
    viewed = "yes" if all(map(is_installed, PACKAGES)) else "not installed"
    return [*storage, Finding("view", f"curate view (pip install '{PACKAGES[0].requirement}'): {viewed}")]
