"""Listening: where, under which names, with which token, until it is stopped."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from curate.errors import UsageError
from curate.packages import is_installed, not_installed, of_extra
from curate.tables import Corpus

DEFAULT_PORT = 8765
PACKAGES = of_extra("view", "starlette", "uvicorn")
_CLOSING_S = 2

LEAST_TOKEN_CHARS = 16
"""Of a token beyond loopback: nothing slows down who guesses."""


@dataclass(frozen=True, slots=True)
class Viewing:
    """A server that is ready: ``url`` to open, and what runs it until Ctrl-C. ``is_local``: this machine alone."""

    url: str
    is_local: bool
    serve: Callable[[], None]


def check_packages() -> None:
    """MissingModelError, with the command that installs them, unless the packages of the extra `view` are there."""
    missing = {package: "the page is served with it" for package in PACKAGES if not is_installed(package)}
    if missing:
        raise not_installed(missing)


@contextmanager
def viewing(
    corpus: Corpus, run_id: str | None = None, *, host: str = "127.0.0.1", port: int | None = None, token: str = ""
) -> Iterator[Viewing]:
    """A server of a run's clips (the last complete one) that listens by now.

    Beyond loopback there is always a token, made up where none is given. Without ``port`` it is DEFAULT_PORT, or any
    where that is taken. UsageError when it cannot listen there, and for a token that is soon guessed.
    """
    check_packages()
    import uvicorn

    from curate.viewer.films import Films
    from curate.viewer.guard import is_loopback
    from curate.viewer.library import Library
    from curate.viewer.server import make_app

    local = is_loopback(host)
    if token and not local and len(token) < LEAST_TOKEN_CHARS:
        text = f"a token for others than this machine has at least {LEAST_TOKEN_CHARS} characters"
        raise UsageError(text, subject="--token", fix="Leave it out: one is made up")
    token = token or ("" if local else secrets.token_urlsafe(24))
    with _listening(host, port) as sock:
        number = sock.getsockname()[1]
        names = frozenset({host, socket.gethostname()}) if not local else frozenset()
        library = Library(corpus, run_id)
        films = Films(library)
        try:
            guard = {"names": names, "loopback": local, "token": token, "port": number}
            app = make_app(library, films, guard, by=os.environ.get("USER", ""))
            config = uvicorn.Config(
                app,
                log_level="error",
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_CLOSING_S,
            )
            server = uvicorn.Server(config)
            yield Viewing(_url(host, number, token), local, lambda: server.run(sockets=[sock]))
        finally:
            films.close()
            library.close()


@contextmanager
def _listening(host: str, port: int | None) -> Iterator[socket.socket]:
    sock = None
    for number in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.create_server((host.strip("[]"), number), family=family)
            break
        except (OSError, OverflowError) as error:
            if port is not None or number == 0:
                fix = "Give another --port or --host"
                raise UsageError(f"cannot listen there: {error}", subject=f"{host}:{number}", fix=fix) from error
    assert sock is not None
    with sock:
        yield sock


def _url(host: str, port: int, token: str) -> str:
    try:
        name = socket.gethostname() if ipaddress.ip_address(host.strip("[]")).is_unspecified else host
    except ValueError:
        name = host
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"http://{name}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")
