"""Secrets in addresses and texts: what is printed, logged or stored never holds them.

``redacted`` is for people: whatever may be a secret is blotted out of a text. ``stored_uri`` is for tables: a name of
the same file that stays the same when its address is signed anew or the password changes, so that a run resumes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from urllib.parse import unquote

_NAMES = "alt download ext file filename format generation id name page part path quality raw v version versionid video"
_HARMLESS = frozenset(_NAMES.split())
"""Query parameters that say which file it is. The value of any other may be a secret."""

_SIGNING = re.compile(
    r"x-(amz|goog|oss|ms|cos)-.*|.*(signature|token|secret|passw|credential|api_?key|access_?key|accessid).*"
    r"|sig|sign|auth.*|jwt|hmac|hdnts|hdnea|pwd|pass|policy|key-pair-id|expires|expiry|exp|se|sp|sv|sr|st|spr|sip"
    r"|skoid|sktid|skt|ske|sks|skv",
    re.IGNORECASE,
)
"""Query parameters of signed addresses: they say who may read until when, not which file it is."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)", re.IGNORECASE)
_PATHS = frozenset({"file://", "local://", "tar://"})
"""What follows is a path, which has no user."""
_LINK = re.compile(r"::(?=[a-z][a-z0-9+.-]{0,30}://|/)", re.IGNORECASE)
"""Between the parts of a chained URI (``tar://a.mp4::https://host/x.tar``)."""
_BLANK = re.compile(r"\s")
_VALUE = re.compile(r"(?P<mark>[?&#])(?:(?P<name>[^=&?#]*)=(?P<value>[^&#]*)(?P<more>#[^&]*)?|[^=&?#]{12,}(?=[&?#]|$))")
_ANEW = re.compile(r"#[0-9a-f]{16}$")
"""The end of a name that ``stored_uri`` made."""
_KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|ya29\.[\w-]{10,}"
    r"|(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)|(?<=Bearer )\S+|(?<=Basic )[A-Za-z0-9+/=]{8,}"
)
"""Keys that are known by their looks wherever they stand."""


def redacted(text: str) -> str:
    """The text with user information and all values of query parameters but harmless ones blotted out of the URIs in
    it, and keys that are known by their looks. Takes time in proportion to the text, whatever it holds.
    """
    return _in_text(text, _shown)


def cleaned(text: str) -> str:
    """The text of a user's own column as tables keep it: like `redacted`, but other query parameters stay."""
    return _in_text(text, _cleaned)


def _in_text(text: str, change: Callable[[str], str]) -> str:
    """The text with ``change`` made to what follows the scheme of each URI, and without keys."""
    parts = _SCHEME.split(text)
    for at in range(2, len(parts), 2):
        blank = _BLANK.search(parts[at])
        end = blank.start() if blank else len(parts[at])
        if parts[at - 1].lower() not in _PATHS:
            parts[at] = change(parts[at][:end]) + parts[at][end:]
    return _KEYS.sub("***", "".join(parts))


def _user_and_rest(after_scheme: str) -> tuple[str, str]:
    """User information with its ``@``, also where a password holds a slash; a port is none."""
    head = re.split("[/?#]", after_scheme, maxsplit=1)[0]
    end = head.rfind("@") + 1
    name, colon, more = head.partition(":")
    if not end and name and colon and not more.isdigit():
        end = after_scheme.rfind("@") + 1
    return after_scheme[:end], after_scheme[end:]


def _shown(after_scheme: str) -> str:
    user, rest = _user_and_rest(after_scheme)
    return ("***@" if user else "") + _VALUE.sub(_blotted, rest)


def _cleaned(after_scheme: str) -> str:
    user, rest = _user_and_rest(after_scheme)
    return ("***@" if ":" in user else user) + _VALUE.sub(_unsigned, rest)


def _unsigned(match: re.Match[str]) -> str:
    is_secret = match["name"] and _SIGNING.fullmatch(unquote(match["name"]))
    return f"{match['mark']}{match['name']}=***" if is_secret else match[0]


def _blotted(match: re.Match[str]) -> str:
    name = match["name"]
    if name is None:
        return f"{match['mark']}***"
    value = match["value"] + ("#***" if match["more"] else "") if _is_harmless(name) else "***"
    return f"{match['mark']}{name}={value}"


def _is_harmless(name: str) -> bool:
    return unquote(name).lower() in _HARMLESS


def stored_uri(uri: str) -> str:
    """The name under which tables keep an input: its URI without secrets. A URI without secrets is its own name.

    Passwords and the parameters of signatures are left out. What else may be a secret but tells files apart (other
    parameters, the name of the user) becomes eight bytes of their sha256 at the end: ``...#5feceb66ffc86f38``.
    """
    if "://" not in uri or not any(sign in uri for sign in "@?#"):
        return uri
    return "::".join(_stored(part) for part in _LINK.split(uri))


def _stored(uri: str) -> str:
    scheme, mark, after_scheme = uri.partition("://")
    is_name = not mark or (scheme + mark).lower() in _PATHS or not _SCHEME.fullmatch(scheme + mark)
    if is_name or ("***" in uri and _ANEW.search(uri)):
        return uri
    if _SCHEME.search(after_scheme):  # an address inside an address: whatever holds the secret, all of it is hashed
        return f"{redacted(uri)}#{_digest(uri)}"
    is_web = scheme.lower().startswith(("http", "ftp", "webdav", "dav"))
    hidden: list[str] = []
    user, rest = _user_and_rest(after_scheme)
    if user and (":" in user or is_web):
        hidden.append(user.rstrip("@").split(":", 1)[0])
        user = "***@"
    place, mark, query = (rest.partition("#")[0] if is_web else rest).partition("?")
    kept = []
    for part in query.split("&") if query else []:
        name, equals, _ = part.partition("=")
        if equals and _SIGNING.fullmatch(unquote(name)) and (is_web or _is_signed(query)):
            continue
        if not is_web or _is_harmless(name) or (not equals and len(name) < 12):
            kept.append(part)
        else:
            kept.append(f"{name}=***" if equals else "***")
            hidden.append(part)
    tail = f"#{_digest('&'.join(hidden))}" if hidden else ""
    return f"{scheme}://{user}{place}{mark if kept else ''}{'&'.join(kept)}{tail}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _is_signed(query: str) -> bool:
    """True for the query of a signed address; elsewhere a question mark may be part of a file's name."""
    return bool(re.search(r"(signature|sig|token)=", query, re.IGNORECASE))
