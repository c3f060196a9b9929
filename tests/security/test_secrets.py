"""Secrets in addresses never reach a table, a log, an error or the terminal, and signed sources resume."""

from __future__ import annotations

import http.server
import re
import threading
from pathlib import Path

import pytest
from cli_kit import curate, good_video, run_args, verdicts, write_recipe
from hypothesis import given
from hypothesis import strategies as st

from curate.export.rows import read_kept
from curate.ingest.listing import list_inputs
from curate.recipe import load_recipe
from curate.records import InputRef
from curate.redaction import cleaned, redacted, stored_uri
from curate.stage import failed_cell
from curate.tables import Corpus

WORD = "hunter2hunter2"

ADDRESSES = {
    "https://u:WORD@host/a.mp4": "https://***@host/a.mp4#",
    "sftp://u:WO/RD:WORD@host:8080/a.mp4": "sftp://***@host:8080/a.mp4#",
    "ftp://u:p@ss:WORD@host/a.mp4": "ftp://***@host/a.mp4#",
    "https://WORD@host/a.mp4": "https://***@host/a.mp4#",
    "https://host/a.mp4?X-Amz-Algorithm=x&X-Amz-Credential=WORD&X-Amz-Signature=WORD": "https://host/a.mp4",
    "https://host/a.mp4?versionId=7&X-Amz-Security-Token=WORD&X-Amz-Signature=1": "https://host/a.mp4?versionId=7",
    "https://host/a.mp4?GoogleAccessId=me&Expires=9&Signature=WORD": "https://host/a.mp4",
    "https://host/a.mp4?sv=2&se=2030&sr=b&sp=r&sig=WORD": "https://host/a.mp4",
    "https://host/a.mp4?token=WORD": "https://host/a.mp4",
    "https://host/a.mp4?hdnea=exp%3dWORD": "https://host/a.mp4",
    "https://host/get?id=17&k=WORD": "https://host/get?id=17&k=***#",
    "https://host/get?WORDWORD": "https://host/get?***#",
    "https://host/a.mp4#access_token=WORD": "https://host/a.mp4",
    "https://u:WORD::WORD@host/a.mp4": None,
    "https://host/x/https://u:WORD@host/a.mp4": None,
    "s3://KEY:WORD@bucket/a.mp4": "s3://***@bucket/a.mp4#",
    "tar://a.mp4::https://u:WORD@host/x.tar?sig=WORD": "tar://a.mp4::https://***@host/x.tar#",
    "zip://a.mp4::https://host/x.zip?token=WORD": "zip://a.mp4::https://host/x.zip",
}
OPEN = (
    "videos/a b.mp4",
    "/videos/what?=1&token=2.mp4",
    "s3://bucket/a@b.mp4",
    "s3://bucket/what?x=1.mp4",
    "abfs://container@account/a.mp4",
    "https://host:80/a@b.mp4",
    "https://host/get?id=17&v=3",
    "tar://a.mp4::/videos/x.tar",
    "memory://a/b.mp4",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_shown_and_stored_holds_no_secret(address):
    full = address.replace("WORD", WORD)
    assert WORD not in redacted(f"cannot open '{full}', status=403")
    assert WORD not in stored_uri(full)
    name = ADDRESSES[address]
    assert name is None or re.sub("#[0-9a-f]{16}$", "#", stored_uri(full)) == name
    assert stored_uri(stored_uri(full)) == stored_uri(full)


@pytest.mark.parametrize("uri", OPEN)
def test_a_name_without_secrets_is_stored_as_it_is(uri):
    assert stored_uri(uri) == uri


def test_a_new_signature_or_password_is_the_same_file_and_another_parameter_is_not():
    sign = "https://host/a.mp4?versionId=1&X-Amz-Date=DATE&X-Amz-Signature=SIG"
    assert stored_uri(sign) == stored_uri(sign.replace("DATE", "2").replace("SIG", "x"))
    assert stored_uri(sign) != stored_uri(sign.replace("versionId=1", "versionId=2"))
    assert stored_uri("https://u:1@host/a") == stored_uri("https://u:2@host/a") != stored_uri("https://v:1@host/a")
    assert stored_uri("https://host/a?k=1") != stored_uri("https://host/a?k=2")


words = st.text(st.characters(categories=["L", "N"], include_characters="@:!$*+,;~'\"<>#%"), min_size=12, max_size=20)


@given(words, words, st.sampled_from(["https", "FTP", "s3"]), st.sampled_from(["token", "k", "X-Amz-Signature"]))
def test_no_part_of_a_secret_is_left(password, value, scheme, name):
    password, value = f"x{password}", f"y{value.replace('#', '')}"
    for made in (redacted, stored_uri):
        shown = made(f"{scheme}://me:{password}@host/folder/a.mp4?id=1&{name}={value}&id=2")
        assert password not in shown
        assert "/folder/a.mp4?id=1" in shown
        is_of_a_file_name = made is stored_uri and scheme == "s3" and name == "k"
        assert is_of_a_file_name or value not in shown


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer WORD",
        "token hf_abcdefghijklmnopqrstuv",
        "key AKIAABCDEFGHIJKLMNOP",
        "ghp_abcdefghijklmnopqrstuvwxyz01",
    ],
)
def test_keys_known_by_their_looks_are_blotted_out(text):
    assert redacted(text).endswith("***")


@pytest.mark.parametrize(
    "text",
    [
        "Max retries exceeded with url: /x.mp4?X-Amz-Signature=WORD&X-Amz-Credential=WORD (Caused by ...)",
        "with url: /x.mp4?k=WORD (Caused by ...)",
        "x-amz-security-token: WORD",
        "{'X-Amz-Security-Token': 'WORD', 'b': b'x'} {'token': b'WORD'} [('session_token', 'WORD')]",
        "AWS4-HMAC-SHA256 Credential=WORD, SignedHeaders=host, Signature=WORD",
        "Authorization: SharedKey account:WORD",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=WORD/a+b==;EndpointSuffix=x",
        "SharedAccessSignature=sv=1&sig=WORD",
        "aws_secret_access_key = WORD",
        'password="WORD WORD" token: WORD',
        "https%3A%2F%2Fh%2Fx%3Fsig%3DWORD",
        "//u:WORD@host/x",
        "https://host/a b?sig=WORD",
        "https://host/a b.mp4?id=1&k=WORD",
        "https://host:some WORD@host/x",
    ],
)
def test_secrets_known_by_their_names_are_blotted_out_without_a_scheme(text):
    shown = redacted(text.replace("WORD", WORD))
    assert WORD not in shown and "***" in shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "key: value, sign: negative, token: end of file",
        "unexpected token: 'x' at line 3",
        "NoSuchKey: {'Key': 'folder/video1.mp4'}, key='a.mp4'",
        "inspect.signature(f), design=3, bypass=2, tokens=5",
        "/data/token=5/a.mp4 does not exist",
        "/videos/what?=1&token=2.mp4",
        "http://host:8080, ask me@example.org; is it a?",
        "see https://host/a b.mp4 and c?d",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


LONG = (
    "x",
    "a://",
    "b:",
    "@",
    "a:b@",
    "?a",
    "&",
    "#a",
    "eyJ-",
    "::",
    "***",
    "ftp://a:",
    "a://h?x=",
    "X-Amz-Signature",
    "token=",
    "token='",
    'token="\n',
    "secret: ",
    "authorization: a ",
    "token:aaaaaaa",
    "url: /x?a=",
    "//a:",
    "a://b:c ",
    "a://b c?d=",
)


@pytest.mark.parametrize("part", LONG)
def test_long_texts_take_no_longer_than_their_length(part):
    """Hostile names and messages of 100,000 characters: a pattern that goes back and forth would take minutes."""
    many = part * (100_000 // len(part))
    for text in (many, f"https://{many}=", f"https://host/?{many}@"):
        assert redacted(text) and stored_uri(text) and cleaned(text)


def test_columns_of_the_user_keep_what_is_no_secret():
    assert cleaned("https://host/watch?v=abc&utm=2") == "https://host/watch?v=abc&utm=2"
    assert cleaned("see https://u:pw@host/a?x=1&sig=zz&y=2") == "see https://***@host/a?x=1&sig=***&y=2"
    assert cleaned("https://host/a?author=me&se=3&exp=4") == "https://host/a?author=me&se=3&exp=4"
    assert cleaned("https://host/a?passwd2=a&se=3") == "https://host/a?passwd2=***&se=***"


def test_a_failed_cell_holds_no_secret_of_its_error():
    try:
        try:
            raise ValueError(f"403, url='https://host/a.mp4?sig={WORD}'")
        except ValueError as error:
            raise RuntimeError(f"https://u:{WORD}@host/a.mp4") from error
    except RuntimeError as error:
        failure = failed_cell("x", error, 0.0).failure
    assert failure is not None
    assert "403, url=" in failure.traceback and "RuntimeError" in failure.traceback
    assert WORD not in failure.message + failure.traceback


def test_a_ref_does_not_tell_its_address():
    ref = InputRef("https://host/a.mp4", address=f"https://host/a.mp4?sig={WORD}")
    assert WORD not in repr(ref) and WORD not in str(ref)
    assert ref.place.endswith(WORD)


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder to those who name the secret in the query, and remembers what was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.secret = folder, WORD
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}?X-Amz-Date=1&X-Amz-Signature={self.secret}"


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, request, address, server):
        super().__init__(request, address, server, directory=str(server.folder))

    def send_head(self):
        if f"Signature={self.server.secret}" not in self.path:
            self.send_error(403)
            return None
        return super().send_head()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    good_video(tmp_path / "served/good.mp4")
    (tmp_path / "served/bad.mp4").write_bytes(b"no video at all" * 99)
    made = Server(tmp_path / "served")
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def holds(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold the secret, Parquet read as text too (its pages may be compressed)."""
    import pyarrow.parquet as pq

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
            found += [str(path)] if secret.encode() in data else []
    return found


def test_signed_sources_are_read_exported_and_resumed_and_the_corpus_does_not_know_the_signature(server, tmp_path):
    listed, out, recipe = tmp_path / "list.csv", tmp_path / "corpus", write_recipe(tmp_path)

    def run():
        rows = [f"{server.url(name)},https://u:{WORD}@host/{name}" for name in ("good.mp4", "bad.mp4", "gone.mp4")]
        listed.write_text("\n".join(["url,page", *rows]) + "\n")
        return curate("run", listed, *run_args(recipe, out))

    ended = run()
    assert (ended.status, ended.err) == (0, "")
    assert {name: verdict for name, (verdict, _) in verdicts(out).items()} == {
        "good.mp4": "kept",
        "bad.mp4": "failed",
        "gone.mp4": "failed",
    }
    assert list((out / "shards").rglob("*.tar"))
    parts = sorted((out / "tables").rglob("*.parquet"))
    server.secret = WORD + "anew"
    again = run()
    assert "1 sources to read" in again.out or "sources to read" not in again.out  # what is gone may be tried again
    assert verdicts(out)["good.mp4"] == ("kept", "")
    assert {path for path in parts if "cells" in str(path)} == {
        path for path in (out / "tables").rglob("*.parquet") if "cells" in str(path)
    }
    said = [ended, again, curate("failures", out), curate("stats", out, "--json"), curate("verify", out, "--deep")]
    assert not any(WORD in each.out + each.err for each in said)
    assert holds(out, WORD) == []


def test_without_its_address_a_signed_source_is_an_honest_hole(server, tmp_path):
    out, recipe = tmp_path / "corpus", write_recipe(tmp_path)
    listed = tmp_path / "list.txt"
    listed.write_text(server.url("good.mp4") + "\n")
    assert curate("run", listed, *run_args(recipe, out), "--no-export").status == 0
    ended = curate("export", out)
    assert "hole" in ended.out
    assert WORD not in ended.out + ended.err
    kept = read_kept(Corpus(str(out)), "small", load_recipe(str(recipe)).export)
    places = [ref.place for source in kept.sources.values() for ref in source.refs]
    assert places == [server.url("good.mp4").split("?")[0]]
    assert curate("run", listed, *run_args(recipe, out)).status == 0
    assert list((out / "shards").rglob("*.tar"))


def test_a_signed_source_is_forgotten_by_the_address_that_the_user_knows(server, tmp_path):
    out, recipe = tmp_path / "corpus", write_recipe(tmp_path)
    assert curate("run", server.url("good.mp4"), *run_args(recipe, out)).status == 0
    ended = curate("forget", out, server.url("good.mp4"), "--reason", "asked for")
    assert (ended.status, ended.err) == (0, "")
    assert holds(out, WORD) == []


def test_members_of_a_signed_tar_keep_its_address(server):
    import tarfile

    with tarfile.open(server.folder / "x.tar", "w") as archive:
        archive.add(server.folder / "good.mp4", "a.mp4")
    (ref,) = list_inputs([server.url("x.tar")])
    assert ref.uri == f"tar://a.mp4::http://127.0.0.1:{server.server_port}/x.tar"
    assert ref.place == f"tar://a.mp4::{server.url('x.tar')}"
