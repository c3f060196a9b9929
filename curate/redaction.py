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

_CREDENTIAL = re.compile(
    r".*(signature|secret|passw|passphrase|credential|(api|access|account|auth|shared|private)[-_]?key).*|.*token"
    r"|(.*[-_.])?(sig|sign|jwt|hmac|hdnts|hdnea|pwd|auth|authorization)",
    re.IGNORECASE,
)
"""Query parameters that make an address a signed one. The others above mean that only beside one of these."""

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

_LONG_NAME = (
    r"[-_](?:token|signature|credential)|(?:security|session|access|auth|refresh)token|accesssignature|secret"
    r"|passw(?:or)?d|passphrase|(?:api|access|account|secret|shared|private|encryption)[-_]?key(?:[-_]?id)?"
)
_SHORT_NAME = r"token|signature|credential|(?:(?<![a-z0-9])|(?<=%3f|%26))(?:sig|sign|jwt|hmac|hdnts|hdnea|pwd|auth)"
_NAMED = re.compile(
    r"(?P<name>"
    r"authorization[\"']?[ ]?[:=][ ]?[\"']?(?:[a-z][\w-]{0,30}[ ])?"
    rf"|(?:{_LONG_NAME})(?:[\"']?[ ]?[:=][ ]?|[\"'],[ ](?=[\"'])|%3d)"
    rf"|(?:{_SHORT_NAME})(?:[\"'][ ]?[:=][ ]?|=|%3d)"
    r"|(?:token|signature|credential):[ ]?(?=[^\s\d]{0,64}\d)(?=\S{8})"
    r"|[?&](?:key|pass)="
    r")(?P<value>b?\"[^\"\n]*\"|b?'[^'\n]*'|[\"']?[^\s&,;\"'<>()\[\]{}]+)",
    re.IGNORECASE,
)
"""``name=value``, ``name: value`` and their like in headers, connection strings and relative addresses. ``token:``
alone is a word of parsers too: what follows must look like a secret. ``key:`` names objects and is left alone."""

_FILE = re.compile(
    r"\.(?:mp4|m4v|mov|mkv|webm|avi|mpe?g|m?ts|wmv|flv|tar|csv|txt|parquet|ya?ml|json)[\"']?$", re.IGNORECASE
)
"""The end of a value that is part of a path (``token=5/a.mp4``)."""

_RELATIVE = re.compile(r"(?<=url: )/\S+")
"""An address as urllib3 tells it: without its host."""

_NO_SCHEME = re.compile(r"(?<![\w:/])//[^\s/@:]*:[^\s/@]+@")
_WORD = re.compile(r"\S+")
_BROKEN_USER = re.compile(r"[^/?#@:\s]+:(?!\d+[^\w@]*$)[^/?#@]*$")
"""A user whose password goes on behind a blank; a port is none."""

_MOST_BLANKS = 200
"""Characters of a text in which the end of such a password is looked for."""


def redacted(text: str) -> str:
    """The text with user information and all values of query parameters but harmless ones blotted out of the URIs in
    it, and keys that are known by their looks or their names. Takes time in proportion to the text, whatever it holds.
    """
    text = _RELATIVE.sub(lambda match: _VALUE.sub(_blotted, match[0]), _in_text(text, _shown, _shown_behind))
    return _NAMED.sub(_without_value, _NO_SCHEME.sub("//***@", text))


def cleaned(text: str) -> str:
    """The text of a user's own column as tables keep it: like `redacted`, but other query parameters stay."""
    return _in_text(text, _cleaned)


def _without_value(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" and value.endswith(value[0]) else ""
    return match[0] if _FILE.search(value) else f"{match['name']}{quote}***{quote}"


def _shown_behind(text: str) -> str:
    """What follows a URI: the rest of its line holds the query where its path has blanks."""
    line, mark, more = text.partition("\n")
    return _WORD.sub(lambda word: _VALUE.sub(_blotted, word[0]) if "=" in word[0] else word[0], line) + mark + more


def _in_text(text: str, change: Callable[[str], str], behind: Callable[[str], str] = str) -> str:
    """The text with ``change`` made to what follows the scheme of each URI, ``behind`` to the text after it, without
    keys.
    """
    parts = _SCHEME.split(text)
    for at in range(2, len(parts), 2):
        end = _end(parts[at])
        if parts[at - 1].lower() not in _PATHS:
            parts[at] = change(parts[at][:end]) + behind(parts[at][end:])
    return _KEYS.sub("***", "".join(parts))


def _end(after_scheme: str) -> int:
    """Where the URI ends: at a blank, but at none of a password."""
    blank = _BLANK.search(after_scheme)
    if blank and _BROKEN_USER.match(after_scheme[: blank.start()]):
        at = after_scheme.find("@", blank.start(), blank.start() + _MOST_BLANKS)
        blank = _BLANK.search(after_scheme, at) if at >= 0 else blank
    return blank.start() if blank else len(after_scheme)


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
    return ("***@" if ":" in user else user) + (_VALUE.sub(_unsigned, rest) if _is_signed(rest) else rest)


def _unsigned(match: re.Match[str]) -> str:
    return f"{match['mark']}{match['name']}=***" if match["name"] and _signs(match["name"]) else match[0]


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
    is_web = _is_web(scheme)
    hidden: list[str] = []
    user, rest = _user_and_rest(after_scheme)
    is_signed = _is_signed(rest)
    if user and (":" in user or is_web):
        hidden.append(user.rstrip("@").split(":", 1)[0])
        user = "***@"
    place, mark, query = (rest.partition("#")[0] if is_web else rest).partition("?")
    kept = []
    for part in query.split("&") if query else []:
        name, equals, _ = part.partition("=")
        if equals and is_signed and _signs(name):
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


def _is_web(scheme: str) -> bool:
    return scheme.lower().startswith(("http", "ftp", "webdav", "dav"))


def _signs(name: str) -> bool:
    """True for a parameter that belongs to the signature of a signed address."""
    return bool(_CREDENTIAL.fullmatch(unquote(name)) or _SIGNING.fullmatch(unquote(name)))


def _is_signed(rest: str) -> bool:
    """True for the end of a signed address. Elsewhere ``exp`` may be an experiment, and ``?`` part of a file's name."""
    return any(match["name"] and _CREDENTIAL.fullmatch(unquote(match["name"])) for match in _VALUE.finditer(rest))


def same_file(uri: str) -> str:
    """The address without what a server is not asked for: passwords, and the fragments of web addresses.

    Two addresses of one `stored_uri` are the same file for sure where this is the same too. It may hold a signature.
    """
    return "::".join(map(_asked_for, _LINK.split(uri)))


def _asked_for(uri: str) -> str:
    scheme, mark, after_scheme = uri.partition("://")
    if not mark or (scheme + mark).lower() in _PATHS:
        return uri
    user, rest = _user_and_rest(after_scheme)
    user = f"{user.split(':', 1)[0]}@" if ":" in user else user
    return f"{scheme}://{user}{rest.partition('#')[0] if _is_web(scheme) else rest}"


def told_apart(name: str, place: str) -> str:
    """Another name for a place (`same_file`) whose `stored_uri` is that of a second place too: with a digest of it."""
    name = _ANEW.sub("", name)
    last = name.rpartition("::")[2]
    mark = "" if "***" in last else "&***" if "?" in last else "?***"
    return f"{name}{mark}#{_digest(place)}"
