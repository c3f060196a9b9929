"""The server: what it serves, in ranges; what it refuses, whoever asks; and marks, its only writing."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import threading
from pathlib import Path

import av
import fsspec
import pytest
from view_kit import HOSTILE, LENGTHS, opened

from curate.forget import forget
from curate.marks import Mark, marks, set_marks
from curate.select import SelectConfig, select
from curate.tables import Corpus, read_parquet
from curate.viewer import films
from curate.viewer.server import ASSETS

HERE, EVIL = "127.0.0.1:1", "evil.example"
ORIGIN = {"origin": f"http://{HERE}"}


def decoded(data: bytes) -> list[float]:
    """Times of the frames of a video."""
    with av.open(io.BytesIO(data)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def test_a_clip_is_played_as_the_span_it_is(made, view):
    for clip, frames in zip(made.a[:2], LENGTHS[:2], strict=True):
        answer = view.get(f"/clips/{clip}.mp4")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        times = decoded(answer.content)
        assert times == pytest.approx([n / 24 for n in range(frames)], abs=1e-4)
    picture = view.get(f"/clips/{made.odd}.webp")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    with av.open(io.BytesIO(picture.content)) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (96, 160)


RANGES = [("0-99", 0, 100), ("100-", 100, None), ("-50", -50, None), ("0-999999999", 0, None), ("7-7", 7, 8)]


@pytest.mark.parametrize(("asked", "start", "end"), RANGES)
def test_ranges_are_parts_of_the_whole(made, view, asked, start, end):
    address = f"/clips/{made.a[0]}.mp4"
    whole = view.get(address).content
    part = view.get(address, headers={"range": f"bytes={asked}"})
    assert part.status_code == 206
    assert part.content == whole[start:end]
    first = start % len(whole)
    last = first + len(part.content) - 1
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"


def test_a_range_beyond_the_end_is_416(made, view):
    address = f"/clips/{made.a[0]}.mp4"
    size = len(view.get(address).content)
    answer = view.get(address, headers={"range": f"bytes={size}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")
    assert view.get(address, headers={"range": "bytes=x"}).status_code == 400


def test_one_clip_with_all_that_is_known_of_it(made, view):
    found = view.get(f"/api/clips/{made.a[1]}", params={"selection": "strict"}).json()
    assert [clip["clip_id"] for clip in found["timeline"]] == made.a
    assert found["timeline"][3]["selection.strict"] == "dropped"
    assert found["verdicts"]["strict"]["verdict"] == "kept"
    cells = {cell["stage"]: cell for cell in found["cells"]}
    assert cells["text"]["values"]["area_max"] == 0.01
    assert cells["similarity"]["values"]["embedding"]["n"] == 700
    odd = view.get(f"/api/clips/{made.odd}").json()
    assert {cell["stage"]: cell for cell in odd["cells"]}["text"]["values"]["words"][0] == HOSTILE


def test_columns_come_with_what_they_hold_and_embeddings_stay_away(made, view):
    facts = view.get("/api/facts").json()
    kinds = {column["name"]: column["kind"] for column in facts["columns"]}
    assert (kinds["text.words"], kinds["similarity.all"], kinds["source.width_px"]) == ("list", "numbers", "number")
    assert {name for name, kind in kinds.items() if kind == "text" and name.startswith("mark.")} == {
        "mark.verdict", "mark.note", "mark.by",
    }  # fmt: skip
    assert "similarity.embedding" not in kinds and "probe.width_px" not in kinds and "clip.clip_id" not in kinds
    for name in kinds:
        assert view.get("/api/values", params={"column": name}).status_code == 200
    assert (facts["totals"]["n"], facts["totals"]["sources"], facts["selections"]) == (len(made.ids), 3, ["strict"])
    assert (facts["stand_ins"], facts["lacks"]) == ({}, {"tracking": HOSTILE})


def test_a_failed_cell_is_told_without_its_secret(made, view):
    answer = view.get(f"/api/clips/{made.gone}")
    (text,) = [cell for cell in answer.json()["cells"] if cell["stage"] == "text"]
    assert (text["outcome"], text["error_class"]) == ("failed", "StageError")
    assert "secret" not in answer.text


def test_a_film_that_is_gone_is_said_so(made, view):
    for kind in ("mp4", "webp"):
        answer = view.get(f"/clips/{made.gone}.{kind}")
        assert answer.status_code in {410, 503}
        assert "gone.mp4: is gone" in answer.json()["error"]


AWAY = [
    "/clips/../../corpus.json.mp4",
    "/clips/%2e%2e%2f%2e%2e%2fcorpus.mp4",
    "/clips/..%2fa.mp4",
    "/clips/{path}.mp4",
    "/clips/0123456789abcdef0123456789abcdef.mp4",
    "/clips/{id}.mp4%00.webp",
    "/clips/{id}.json",
    "/clips/{id}",
    "/clips/{ID}.mp4",
    "/assets/../server.py",
    "/assets/..%2fserver.py",
    "/assets/%2e%2e/server.py",
    "/assets//etc/passwd",
    "/assets/view.html",
    "/api/clips/..%2f..%2fcorpus.json",
    "/corpus.json",
    "/tables/cells",
    "/api",
    "//etc/passwd",
]


@pytest.mark.parametrize("path", AWAY)
def test_no_path_leads_to_a_file(made, view, path):
    clip = made.a[0]
    film = str(made.corpus.root.path).replace("/corpus", "/films/a").replace("/", "%2f")
    answer = view.get(path.format(path=film, id=clip, ID=clip.upper()))
    assert answer.status_code == 404, answer.text
    assert len(answer.content) < 300


def test_the_page_and_its_parts_come_with_a_policy(view):
    for path in ("/", *(f"/assets/{name}" for name in ASSETS)):
        answer = view.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    assert "<script>" not in view.get("/").text  # the policy would not run it


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:1", "10.0.0.7", "127.0.0.1.evil.example", "", "a b", "[::1"]
)
def test_a_name_that_is_not_of_this_machine_is_refused(view, host):
    for path in ("/", "/api/facts", "/assets/main.js"):
        answer = view.get(path, headers={"host": host})
        assert (answer.status_code, "--host NAME" in answer.text) == (421, True)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:9000", "LOCALHOST", "[::1]:1", "127.0.0.9"])
def test_names_of_loopback_are_taken_whatever_the_port(view, host):
    assert view.get("/", headers={"host": host}).status_code == 200


FOREIGN = [
    {},
    {"origin": "null"},
    {"origin": f"http://{EVIL}"},
    {"origin": "http://127.0.0.1:2"},
    {"origin": f"http://{HERE}.{EVIL}"},
    {**ORIGIN, "content-type": "text/plain"},
    {**ORIGIN, "content-type": "application/x-www-form-urlencoded"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_only_the_page_itself_may_mark(made, view, headers):
    body = json.dumps({"clips": made.a[:1], "verdict": "drop"})
    headers = {"content-type": "application/json", **headers}
    assert view.post("/api/marks", content=body, headers=headers).status_code == 403
    assert view.get("/api/marks").status_code == 405
    assert marks(made.corpus) == {}


def test_beyond_loopback_nothing_is_told_without_the_token(made):
    with opened(made.corpus, loopback=False, names=frozenset({"box"}), token="s3cret") as client:
        client.follow_redirects = False
        paths = [
            "/",
            "/api/facts",
            "/assets/main.js",
            f"/clips/{made.a[0]}.webp",
            "/?token=",
            "/?token=s3cre",
            "/?token=é",
        ]
        for path in paths:
            assert client.get(path, headers={"host": "box:1"}).status_code == 401
        for header in ({"authorization": "Bearer no"}, {"cookie": "curate-view-1=no"}, {"cookie": '="\\'}):
            assert client.get("/", headers={"host": "box:1", **header}).status_code == 401
        first = client.get("/?token=s3cret", headers={"host": "box:1"})
        assert (first.status_code, first.headers["location"]) == (303, "/")
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        given = {"host": "box:1", "cookie": cookie.split(";")[0]}
        assert client.get("/api/facts", headers=given).status_code == 200
        assert client.get("/", headers={"host": "box:1", "authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/", headers={**given, "host": "10.1.2.3"}).status_code == 200
        assert client.get("/", headers={**given, "host": "evil.example"}).status_code == 421
        client.cookies.clear()
        box = "box:1"
        post = {"clips": made.a[:1], "verdict": "drop"}
        assert (
            client.post("/api/marks", json=post, headers={"host": "box:1", "origin": f"http://{box}"}).status_code
            == 401
        )


def mark(client, clips, verdict, note=""):
    return client.post("/api/marks", json={"clips": clips, "verdict": verdict, "note": note}, headers=ORIGIN)


def test_a_mark_is_stored_shown_and_selected_by(own):
    with opened(own.corpus) as client:
        answer = mark(client, own.a[:2], "drop", "Ärger <b>")
        assert (answer.status_code, answer.json()["changed"]) == (200, 2)
        assert answer.json()["totals"]["drop"] == 2
        assert mark(client, [own.a[2]], "keep").json()["totals"]["keep"] == 1
        assert mark(client, [own.a[1]], None).json()["changed"] == 1
        asked = json.dumps({"filters": [{"column": "mark.verdict", "has": True}]})
        found = client.get("/api/clips", params={"q": asked}).json()
        assert {clip["clip_id"]: clip["mark.verdict"] for clip in found["clips"]} == {
            own.a[0]: "drop",
            own.a[2]: "keep",
        }
        assert client.get(f"/api/clips/{own.a[0]}").json()["mark"] == {
            "verdict": "drop",
            "note": "Ärger <b>",
            "by": "me",
        }
    assert marks(own.corpus) == {own.a[0]: Mark("drop", "Ärger <b>", "me"), own.a[2]: Mark("keep", "", "me")}
    condition = {"column": "mark.verdict", "not_in": ["drop"]}
    config = {"name": "checked", "conditions": [condition], "dedup": {"method": "none"}}
    assert select(own.corpus, SelectConfig.model_validate(config)).clips.kept == len(own.ids) - 1


BODIES = [
    {"clips": [], "verdict": "drop"},
    {"clips": ["x"], "verdict": "drop"},
    {"clips": ["0" * 32], "verdict": "drop"},
    {"clips": "{id}", "verdict": "drop"},
    {"verdict": "drop"},
    {"clips": ["{id}"]},
    {"clips": ["{id}"], "verdict": "perhaps"},
    {"clips": ["{id}"], "verdict": "drop", "note": 7},
    {"clips": ["{id}"], "verdict": "drop", "note": "x" * 2001},
    {"clips": ["{id}"], "verdict": "drop", "path": "/x"},
    {"clips": ["{id}"] * 201, "verdict": "drop"},
    {"clips": ["{id}"] * 5000, "verdict": "drop"},
    ["{id}"],
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body)[:50])
def test_marks_that_make_no_sense_are_refused(made, view, body):
    text = json.dumps(body).replace("{id}", made.a[0])
    answer = view.post("/api/marks", content=text, headers={**ORIGIN, "content-type": "application/json"})
    assert answer.status_code in {400, 404, 413}
    assert marks(made.corpus) == {}


def test_what_others_do_meanwhile_is_seen_when_the_page_is_opened_again(own):
    with opened(own.corpus) as client:
        verdict = {"filters": [{"column": "selection.strict", "in": ["kept"]}]}
        assert client.get("/api/clips", params={"q": json.dumps(verdict)}).json()["n"] == 3
        set_marks(own.corpus, {own.odd: "keep"}, by="you")
        conditions = [{"column": "text.area_max", "max": 0.005, "on_failed": "drop"}]
        for name in ("strict", "new"):
            config = {"name": name, "conditions": conditions, "dedup": {"method": "none"}}
            select(own.corpus, SelectConfig.model_validate(config))
        facts = client.get("/api/facts").json()
        assert (facts["totals"]["keep"], sorted(facts["selections"])) == (1, ["new", "strict"])
        assert client.get("/api/clips", params={"q": json.dumps(verdict)}).json()["n"] == 1
        assert read_parquet(own.corpus.selections().child("new", "selection.parquet")).num_rows == len(own.ids)


def test_a_corpus_on_an_object_store_is_viewed_and_marked_there(made, memory_bucket):
    fs = fsspec.filesystem("memory")
    fs.put(made.corpus.root.path, "/bucket/corpus", recursive=True)
    corpus = Corpus(f"{memory_bucket}/corpus")
    with opened(corpus) as client:
        asked = json.dumps({"selection": "strict", "filters": [{"column": "selection.strict", "in": ["kept"]}]})
        assert client.get("/api/clips", params={"q": asked}).json()["n"] == 3
        assert client.get(f"/clips/{made.a[0]}.webp").status_code == 200
        assert mark(client, made.a[:1], "keep").json()["totals"]["keep"] == 1
        assert client.get(f"/api/clips/{made.a[0]}").json()["mark"]["verdict"] == "keep"
    assert marks(corpus) == {made.a[0]: Mark("keep", "", "me")}


def test_a_source_that_was_taken_down_is_not_shown(made, own):
    with opened(own.corpus) as client:
        assert client.get(f"/clips/{own.a[0]}.webp").status_code == 200
        forget(own.corpus, made.film("a.mp4"), "asked to")
        answer = client.get(f"/clips/{own.a[0]}.webp")
        assert (answer.status_code, "taken down: asked to" in answer.json()["error"]) == (410, True)
        assert client.get("/api/facts").json()["totals"]["n"] == 2
        assert client.get("/api/clips").json()["n"] == 2
        for path in (f"/clips/{own.a[0]}.webp", f"/clips/{own.a[0]}.mp4", f"/api/clips/{own.a[0]}"):
            assert client.get(path).status_code == 404
        assert client.get(f"/clips/{own.odd}.webp").status_code == 200


def test_who_went_away_gets_no_film_made(made):
    told = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    path, said = f"/clips/{made.a[0]}.webp", []

    async def receive():
        return told.pop(0) if told else {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    about = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope = {**about, "headers": [(b"host", HERE.encode())], "http_version": "1.1", "scheme": "http", "server": None}
    with opened(made.corpus) as client:
        asyncio.run(client.app(scope, receive, send))
        assert said[0]["status"] == 499
        assert client.films._files == {}


def test_the_beginning_of_a_long_clip_is_played(made, monkeypatch):
    monkeypatch.setattr(films, "MOST_PLAYED_S", 0.5)
    with opened(made.corpus) as client:
        assert len(decoded(client.get(f"/clips/{made.a[4]}.mp4").content)) == 12
        assert len(decoded(client.get(f"/clips/{made.a[0]}.mp4").content)) == LENGTHS[0]


def test_a_full_disk_is_said_so(made, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(made.corpus) as client:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            answer = client.get(f"/clips/{made.a[0]}.webp")
        assert answer.status_code == 503 and "space" in answer.json()["error"]
        assert client.get(f"/clips/{made.a[0]}.webp").status_code == 200


def test_what_is_kept_is_bounded_and_made_once(made):
    with opened(made.corpus, most_bytes=1) as client:
        answers = [client.get(f"/clips/{clip}.webp").content for clip in [*made.a, made.a[0]]]
        assert answers[0] == answers[-1]
        assert len(client.films._files) <= 2
    with opened(made.corpus) as client:
        got = []
        threads = [
            threading.Thread(target=lambda: got.append(client.get(f"/clips/{made.a[0]}.webp").content)) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [answers[0]] * 2
        assert all(each.readers == 0 for each in client.films._files.values())
