"""Planning, writing and putting in place of a shard set.

shards/.NAME.PLAN/set/<bucket>/<number>.{tar,parquet}    what is written, kept when an export stops half-way
shards/.NAME.PLAN/records/<bucket>/<number>.json         one mark a finished shard: resuming skips it
shards/NAME/                                             the finished set, swapped in at the end; index.json last
shards/NAME/README.md                                    its dataset card, made when all shards are there
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from curate.bulk import RunMap, inline_map
from curate.errors import CorpusError, StorageError
from curate.export.card import dataset_card
from curate.export.config import ExportConfig, ExportReport
from curate.export.plan import ExportPlan, make_plan
from curate.export.rows import read_kept
from curate.export.write import ShardResult, all_there, read_record, set_place, write_record, write_shard
from curate.isolation import Limits
from curate.media.encode import encoder_version
from curate.shards.index import CARD_NAME, INDEX_NAME, Hole, ShardIndex
from curate.shards.tombstones import forgotten
from curate.storage import Place, storage_error
from curate.tables import Corpus


def plan_export(
    corpus: Corpus, selection: str, config: ExportConfig, addresses: Mapping[str, str] | None = None
) -> ExportPlan:
    """What an export would write, and which clips no bucket takes and why; nothing is written.

    ConfigError for a column that the run lacks, CorpusError for a missing selection.
    """
    corpus.check()
    plan = make_plan(read_kept(corpus, selection, config, addresses), selection, config, forgotten(corpus))
    return plan.staged_below(_staging(corpus, config.name or selection, plan).uri)


def export(
    corpus: Corpus,
    selection: str,
    config: ExportConfig,
    *,
    run_map: RunMap = inline_map,
    addresses: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> ExportReport:
    """Write the selection's clips as the shard set ``config.name`` (default: the selection's name).

    ``addresses``: where to read the sources that are only reached with a secret, by the names that the tables keep.
    ``limits`` are those of decoding a source.

    The same selection and sources give the same bytes, whatever ran the tasks. A finished set of the same plan is left
    alone; of one with holes, or of another card, the whole shards are taken over and the rest is done again.
    StorageError when the corpus cannot be written.
    """
    name = config.name or selection
    plan = plan_export(corpus, selection, config, addresses)
    final, staging = corpus.shards(name), _staging(corpus, name, plan)
    old = _in_place(final, plan)
    if old is not None and not old.holes and all_there(final, old.shards) and _has_card(plan, config, final, old):
        return _report(name, final, plan, old, reused=True)
    if old is not None:
        _take_over(plan, final, old)
    results = list(run_map(partial(write_shard, limits=limits), plan.tasks))
    index = _index(plan, config, results)
    card = dataset_card(plan, config, index).encode()
    index = replace(index, card_sha256=hashlib.sha256(card).hexdigest())
    try:
        _put_in_place(staging, final, index, card)
    except StorageError:
        # Another export of the same plan works in the same staging folder, and may have been faster.
        other = _in_place(final, plan)
        if other is None or other.shards != index.shards or not all_there(final, other.shards):
            raise
        staging.remove()
        return _report(name, final, plan, other, reused=True)
    report = _report(name, final, plan, index, reused=False)
    took = {"work_s": sum(each.seconds for each in results), "cpu_s": sum(each.cpu_s for each in results)}
    return replace(report, **took)


def _staging(corpus: Corpus, name: str, plan: ExportPlan) -> Place:
    return corpus.root.child("shards", f".{name}.{plan.digest[:16]}")


def _in_place(folder: Place, plan: ExportPlan) -> ShardIndex | None:
    """The index of the set in place; None when there is none of this plan that this version reads."""
    try:
        found = ShardIndex.read(folder)
    except CorpusError:
        return None
    return found if found.plan == plan.digest else None


def _has_card(plan: ExportPlan, config: ExportConfig, final: Place, old: ShardIndex) -> bool:
    """Whether the set in place has the card that it would get now: its selection may have come about otherwise."""
    card, place = dataset_card(plan, config, old).encode(), final.child(CARD_NAME)
    return old.card_sha256 == hashlib.sha256(card).hexdigest() and place.exists() and place.read_bytes() == card


def _take_over(plan: ExportPlan, final: Place, old: ShardIndex) -> None:
    """Copy shards without holes from the set in place, so that only the others are written again."""
    damaged = {hole.shard for hole in old.holes}
    entries = {shard.path: shard for shard in old.shards if shard.path not in damaged}
    for task in plan.tasks:
        entry = entries.get(f"{task.stem}.tar")
        if entry is None or read_record(task) is not None or not all_there(final, [entry]):
            continue
        for path in (entry.path, entry.sidecar):
            _below(set_place(task), path).copy_from(_below(final, path))
        write_record(task, ShardResult(entry, ()))


def _index(plan: ExportPlan, config: ExportConfig, results: Sequence[ShardResult]) -> ShardIndex:
    holes: list[Hole] = [hole for result in results for hole in result.holes]
    return ShardIndex(
        plan=plan.digest,
        selection=plan.selection,
        encoder=encoder_version(),
        export=config.model_dump(mode="json"),
        shards=tuple(result.entry for result in results if result.entry is not None),
        holes=tuple(sorted(holes, key=lambda hole: (hole.shard, hole.clip_id))),
        left_out=plan.left_out,
    )


def _put_in_place(staging: Place, final: Place, index: ShardIndex, card: bytes) -> None:
    """Make the staged set the one in place. On local disk by renaming the folder, elsewhere file by file."""
    written = staging.child("set")
    written.child(CARD_NAME).write_bytes(card)
    if not all_there(written, index.shards):
        raise StorageError(
            "files of the export vanished while it ran", subject=staging.uri, fix="Export again; only those are redone"
        )
    if final.is_local:
        written.child(INDEX_NAME).write_text(index.to_json())
        _swap_local(Path(written.path), Path(final.path))
    else:
        _swap_remote(written, final, index)
    staging.remove()


def _swap_local(new: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.replaced")
    try:
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        new.rename(final)
    except OSError as error:
        if old.exists() and not final.exists():
            old.rename(final)  # the new set is gone: another export took it, and this is it
        raise storage_error(error, str(final), writing=True) from error
    shutil.rmtree(old, ignore_errors=True)


def _swap_remote(written: Place, final: Place, index: ShardIndex) -> None:
    """Without renames a set is taken out of use (no index), filled, and put into use again."""
    final.child(INDEX_NAME).remove()
    keep = [CARD_NAME, *(path for shard in index.shards for path in (shard.path, shard.sidecar))]
    for path in keep:
        _below(final, path).copy_from(_below(written, path))
    final.child(INDEX_NAME).write_text(index.to_json())
    wanted = {_below(final, path).path for path in [*keep, INDEX_NAME]}
    root = len(final.path.rstrip("/")) + 1
    for found in final.tree():
        if found not in wanted:
            _below(final, found[root:]).remove()


def _below(folder: Place, path: str) -> Place:
    return folder.child(*path.split("/"))


def _report(name: str, final: Place, plan: ExportPlan, index: ShardIndex, *, reused: bool) -> ExportReport:
    size_bytes = sum(shard.bytes for shard in index.shards)
    counts = (plan.kept, index.n_clips, len(index.shards), size_bytes)
    return ExportReport(name, final.uri, *counts, plan.left_out, index.holes, reused)
