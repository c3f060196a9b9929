"""The dataset card of a shard set: README.md, as people and the `datasets` library read it.

Everything in it follows from the plan, the finished shards and the corpus' own records, so the same selection of the
same sources gives the same text. It names kinds of places, never a place, nor a run, a machine or a time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from curate.errors import ConfigError
from curate.export.config import ExportConfig
from curate.export.hub import front_matter
from curate.export.markdown import code, fenced, plain, table
from curate.export.plan import ExportPlan, PlannedClip
from curate.export.provenance import UNKNOWN, told_reason, without_places
from curate.export.rows import Source
from curate.shards.index import ShardIndex
from curate.units import HOUR_S, format_bytes, format_duration
from curate.weights.cards import load_card

_ROWS = 30
"""Most rows of a table of anybody's words; the others are added up in one."""


@dataclass(frozen=True, slots=True)
class CardClip:
    """A clip of the finished set; ``licence`` is its source's, empty where nobody said."""

    planned: PlannedClip
    bucket: str
    source: Source
    licence: str

    @property
    def digest(self) -> str:
        """Of its source."""
        return self.planned.clip.source_digest

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.planned.clip.duration_s)


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of."""

    name: str
    plan: ExportPlan
    config: ExportConfig
    index: ShardIndex
    clips: Sequence[CardClip]


@dataclass(frozen=True, slots=True)
class Share:
    """So many sources and clips, and seconds of them, have this in common."""

    label: str
    sources: int
    clips: int
    seconds: float


def dataset_card(plan: ExportPlan, config: ExportConfig, index: ShardIndex) -> str:
    """The text of README.md. ``index`` may lack the digest of the card."""
    facts = card_facts(plan, config, index)
    licences = shares(facts.clips, lambda clip: clip.licence)
    sections: list[tuple[str, Iterable[str]]] = [
        ("Reading it", _reading(facts)),
        ("Sources", _sources(facts)),
        ("Licences", _licences(licences)),
        ("Funnel", _funnel(facts)),
        ("Models", _models(facts)),
        ("Known limits", _limits(facts, licences)),
        ("Recipe", _recipe(facts)),
    ]
    parts = [front_matter(facts.name, plan, config, index, [share.label for share in licences]), *_head(facts)]
    for title, paragraphs in sections:
        parts += [f"## {title}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def card_facts(plan: ExportPlan, config: ExportConfig, index: ShardIndex) -> CardFacts:
    """The clips that are in the set, with what is known of their sources."""
    holes = {hole.clip_id for hole in index.holes}
    licences = plan.provenance.licences
    clips = [
        CardClip(entry, task.bucket, task.sources[digest], licences.get(digest, ""))
        for task in plan.tasks
        for entry in task.clips
        if entry.clip.clip_id not in holes and (digest := entry.clip.source_digest)
    ]
    return CardFacts(config.name or str(plan.selection["name"]), plan, config, index, clips)


def shares(clips: Iterable[CardClip], label_of: Callable[[CardClip], str]) -> list[Share]:
    """Sources, clips and seconds by label, the most clips first. They add up to all clips."""
    groups: dict[str, list[CardClip]] = {}
    for clip in clips:
        groups.setdefault(label_of(clip), []).append(clip)
    found = [Share(label, len({c.digest for c in own}), len(own), _seconds(own)) for label, own in groups.items()]
    return sorted(found, key=lambda share: (-share.clips, share.label))


def _seconds(clips: Iterable[CardClip]) -> float:
    return math.fsum(clip.seconds for clip in clips)


def _share_table(head: str, found: Sequence[Share]) -> str:
    """One row a share, labels as code."""
    shown = [(code(s.label), s.sources, s.clips, format_duration(s.seconds)) for s in found[:_ROWS]]
    rest = found[_ROWS:]
    if rest:
        told = f"{len(rest):,} others (a source may be in several)"
        length = format_duration(math.fsum(s.seconds for s in rest))
        shown.append((told, sum(s.sources for s in rest), sum(s.clips for s in rest), length))
    return table((head, ">sources", ">clips", ">video"), shown)


def _head(facts: CardFacts) -> Iterator[str]:
    yield f"# {facts.name}"
    n_sources = len({clip.digest for clip in facts.clips})
    lengths = sorted(clip.seconds for clip in facts.clips)
    about = f"{len(facts.clips):,} clips of {n_sources:,} videos, {format_duration(_seconds(facts.clips))} in all"
    if lengths:
        about += (
            f"; {lengths[0]:.2f} to {lengths[-1]:.2f} s long, half of them up to {lengths[len(lengths) // 2]:.2f} s"
        )
    yield f"{about}. Cut, measured, selected and written by `curate`."
    rows = []
    for bucket in sorted({shard.bucket for shard in facts.index.shards}):
        shards = [shard for shard in facts.index.shards if shard.bucket == bucket]
        length = format_duration(_seconds(clip for clip in facts.clips if clip.bucket == bucket))
        size = format_bytes(sum(shard.bytes for shard in shards))
        rows.append((f"`{bucket}`", sum(shard.count for shard in shards), length, len(shards), size))
    if rows:
        yield table(("bucket (width x height x frames)", ">clips", ">video", ">shards", ">size"), rows)


def _reading(facts: CardFacts) -> Iterator[str]:
    config = facts.config
    caption = f"the text of the column {code(config.caption)}" if config.caption else "empty"
    yield (
        "A WebDataset: each tar holds, for each clip, `<clip_id>.mp4`, `.json` (all that was measured) and `.txt` "
        f"({caption}); the Parquet file beside it has one row a clip. A clip fills its bucket: it is at least so wide, "
        "high and long. `index.json` has the digest of every file."
    )
    yield fenced(
        "from datasets import Video, load_dataset\n\n"
        'clips = load_dataset(FOLDER, split="train", streaming=True)\n'
        'clips = clips.cast_column("mp4", Video(decode=False))  # bytes; without this, frames by torchcodec\n'
        'bucket = load_dataset(FOLDER, data_files="BUCKET/*.tar", split="train", streaming=True)\n'
        'facts = load_dataset("parquet", data_files=FOLDER + "/*/*.parquet", split="train")  # a row a clip, no video',
        "python",
    )
    sound = "with sound as AAC" if config.audio else "without sound"
    copied = ", copied unchanged where both ends are closed key frames" if config.mode == "auto" else ""
    crop = ", black bars cut off" if config.crop == "letterbox" else ""
    yield (
        f"Videos were encoded by {code(facts.index.encoder)} (crf {config.crf}, {config.preset}), "
        f"{sound}{copied}{crop}; "
        "their frame rates are those of the sources."
    )


def _sources(facts: CardFacts) -> Iterator[str]:
    counts = facts.plan.provenance.funnel.get("inputs", {})
    if counts:
        told = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("kept", "dropped", "failed", "skipped"))
        yield f"{counts.get('found', 0):,} inputs were found: {told}. Those of the clips here:"
    yield _share_table("read from", shares(facts.clips, lambda clip: _kind_of_place(clip.source)))
    yield _share_table("stored as", shares(facts.clips, _format))


def _kind_of_place(source: Source) -> str:
    """``https``, ``tar in s3``: the protocols of its first name, ``file`` for this machine's disks."""
    parts = source.refs[0].uri.split("::")
    return " in ".join(part.partition("://")[0] if "://" in part else "file" for part in parts)


def _format(clip: CardClip) -> str:
    facts = clip.source.facts
    return f"{facts.codec} in {facts.container}"


def _licences(found: Sequence[Share]) -> Iterator[str]:
    named = [replace(share, label=share.label or UNKNOWN) for share in found]
    yield (
        "As the source list says (`user.license` or `user.licence`), in its words; nobody checked them. "
        f"`{UNKNOWN}`: it says nothing. A clip has the licence of its source; where the list gives one content "
        "several, all stand there, with a slash between."
    )
    yield _share_table("licence", named)


def _funnel(facts: CardFacts) -> Iterator[str]:
    funnel = facts.plan.provenance.funnel
    clips, hours = funnel.get("clips", {}), funnel.get("hours", {})
    if not clips:
        yield "The selection kept no record of it."
        return
    verdicts = ("found", "kept", "dropped", "failed")
    rows = [(name, clips.get(name, 0), format_duration(HOUR_S * hours.get(name, 0.0))) for name in verdicts]
    yield table(("clips", ">n", ">video"), rows)
    yield (
        "Failed: a measurement that the selection needs could not be made. The reasons, of several the first, "
        "with those of inputs that gave no clip:"
    )
    yield _reasons(funnel, facts.plan.provenance.errors)
    conditions = [
        (code(without_places(c["text"])), c["kind"], c["first"], c["failing"], c["cell_failed"])
        for c in funnel.get("conditions", ())
    ]
    if conditions:
        yield table(("condition", "kind", ">decided", ">not fulfilled", ">not measured"), conditions)
    shared = [
        (code(t["column"]), f"{t['kind'].replace('_', ' ')} {t['share']:.4g}", t["n"], _threshold(t["value"]))
        for t in funnel.get("thresholds", ())
    ]
    if shared:
        yield "Shares that were asked for, and the values that they came to:"
        yield table(("column", "rule", ">values ranked", ">threshold"), shared)


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _reasons(funnel: Mapping[str, Any], errors: Mapping[str, str]) -> str:
    counts: Counter[tuple[str, str, str]] = Counter()
    for what in ("clip", "input"):
        for entry in funnel.get(f"{what}_reasons", ()):
            is_failed = (what, entry["verdict"]) == ("input", "failed")
            reason = told_reason(entry["reason"], errors, failed_input=is_failed)
            counts[what, entry["verdict"], plain(reason)] += entry["n"]
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0]))
    rows: list[tuple[object, ...]] = []
    for what in ("clip", "input"):
        own = [(each, n) for each, n in ordered if each[0] == what]
        rows += [(f"{what}s", verdict, code(reason), n) for (_, verdict, reason), n in own[:_ROWS]]
        if own[_ROWS:]:
            rows.append((f"{what}s", "", f"{len(own) - _ROWS:,} others", sum(n for _, n in own[_ROWS:])))
    return table(("what", "ended as", "why", ">n"), rows)


def _models(facts: CardFacts) -> Iterator[str]:
    models = facts.plan.provenance.models
    if not models:
        yield "No model took part."
        return
    rows = []
    for name, stages in models.items():
        try:
            card = load_card(name)
            licence, terms = plain(card.licence, 400), plain(card.terms, 400)
        except ConfigError:
            licence, terms = UNKNOWN, "its card is not here"
        rows.append((code(name), ", ".join(map(code, stages)), code(licence, 400), code(terms, 400) if terms else ""))
    yield "What they say of the clips stands in the columns of their stages; their terms may bind its use."
    yield table(("model", "stages", "licence", "terms"), rows)


def _limits(facts: CardFacts, licences: Sequence[Share]) -> Iterator[str]:
    about = facts.plan.provenance
    found = [f"{code(stage)}: {code(without_places(text), 300)}" for stage, text in about.stand_ins.items()]
    told = without_places([f"{what}: {why}" for what, why in about.lacks.items()])
    found += [f"Not done: {code(each, 300)}" for each in told]
    unknown = sum(share.clips for share in licences if not share.label)
    if unknown:
        found.append(f"Of {unknown:,} clips nobody said the licence.")
    if facts.config.caption:
        found.append("Captions are written by programs, and nobody read them all.")
    found += [
        "Measurements are estimates; a threshold on them drops good clips and keeps bad ones.",
        "None of the stages of `curate` looks for faces, private data, or pictures that should not be shown.",
        "Clips of one video may look alike: split by `source_digest`, not by clip, to hold some out.",
    ]
    for reason, n in sorted(facts.plan.left_out.items()):
        found.append(f"{n:,} clips that the selection keeps are left out: {code(without_places(reason))}.")
    for reason, n in sorted(Counter(hole.reason for hole in facts.index.holes).items()):
        found.append(f"{n:,} clips could not be written: {code(without_places(reason))}.")
    yield "\n".join(f"- {line}" for line in found)


def _recipe(facts: CardFacts) -> Iterator[str]:
    """The run's recipe with the selection and the export that were really made."""
    about = facts.plan.provenance
    export = facts.config.model_dump(mode="json", by_alias=True, exclude_none=True)
    recipe = {**about.recipe, "select": about.funnel.get("config", about.recipe.get("select", {})), "export": export}
    yield "As `curate run --recipe` takes it. Addresses and paths are left out (`***`)."
    yield fenced(yaml.safe_dump(without_places(recipe), sort_keys=False, width=100), "yaml")
