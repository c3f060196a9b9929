"""The long form of the faulty store: jobs on S3 through ever worse faults, killed now and then, against one on disk.

python tests/soak/store_soak.py [--rounds 20] [--videos 12] [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import fsspec
from cli_kit import curate, files_below, start, tables, write_recipe
from faulty_proxy import faulty_proxy
from s3_kit import BUCKET, CREDENTIALS, Store, Watch, command, store
from soak.kill_kit import DRIVER, INLINE, WORKER, Victim, end_session, make_bucket

CORPUS = f"s3://{BUCKET}/corpus"
RAY_EVERY = 4
"""One round of so many is on Ray, the first one too: its jobs take some ten times as long to start."""
FILES = {"inline": 60, "ray": 30}
"""A job is killed before it has written so many files; on Ray each is of several sources."""


def one_round(s3: Store, near: Path, recipe: Path, draw: random.Random, found: Counter[str], *, ray: bool) -> None:
    """A job killed up to two times, then completed; then compaction. AssertionError where it is not that on disk.

    ``ray``: the job that is killed is one on Ray, and it is struck once at least.
    """
    for key in s3.keys("corpus/"):
        s3.delete(key)
    args = ["run", f"s3://{BUCKET}/raw", "--recipe", recipe, "--out", CORPUS, "--no-report"]
    with faulty_proxy(s3.address, seed=draw.randrange(10**6), share=draw.choice((0.05, 0.15, 0.3))) as proxy:
        with Watch(s3, "corpus/") as watch:
            for _ in range(max(ray, draw.randrange(3))):
                victim = draw.choice((DRIVER, WORKER)) if ray else INLINE
                found[killed(s3, args, proxy.url, victim, draw)] += 1
            command(*args, "--engine", "inline", url=proxy.url)
            command("compact", CORPUS, url=proxy.url)
            command("verify", CORPUS, "--deep", url=proxy.url)
        assert watch.wrong == []
        found.update(proxy.injected)
        found["requests"] += proxy.requests
        found["looks"] += watch.rounds
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert tables(CORPUS) == tables(near)
    assert s3.files("corpus/shards/small/") == files_below(near / "shards/small")


def killed(s3: Store, args: list[object], url: str, victim: Victim, draw: random.Random) -> str:
    """Start a job and strike, if it lives so long, once so many more files are there; gives who was hit.

    A job on Ray that lost a worker is left to end as it will.
    """
    wanted = len(s3.keys("corpus/")) + draw.randrange(1, FILES[victim.engine])
    env = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": url}
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = start(*args, "--engine", victim.engine, env=env, **out)
    try:
        while process.poll() is None and not (len(s3.keys("corpus/")) >= wanted and victim.ready(process)):
            time.sleep(0.1)
        hit = process.poll() is None and victim.strike(process, draw)
        assert process.wait() in {0, 1, -signal.SIGKILL}
    finally:
        end_session(process)
    return f"{victim.name} killed" if hit else "ended before"


def main() -> None:
    """Rounds, each with faults and kills of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    args = parser.parse_args()
    print(f"seed {args.seed}: {args.rounds} rounds over {args.videos} videos", flush=True)
    draw, found = random.Random(args.seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, store() as s3:
        folder = Path(name)
        bucket, recipe, near = make_bucket(folder / "bucket", args.videos), write_recipe(folder), folder / "corpus"
        assert curate("run", bucket, "--recipe", recipe, "--out", near, "--engine", "inline", "--no-report").status == 0
        for path in bucket.iterdir():
            s3.put(f"raw/{path.name}", path.read_bytes())
        os.environ.update({**CREDENTIALS, "AWS_ENDPOINT_URL": s3.url})
        for number in range(args.rounds):
            one_round(s3, near, recipe, draw, found, ray=number % RAY_EVERY == 0)
            print(f"round {number + 1} whole; so far {dict(found)}", flush=True)


if __name__ == "__main__":
    main()
