"""Asking a model behind an OpenAI-compatible chat endpoint (vLLM, Ollama and others).

The questions of a batch travel at the same time. Each answer belongs to its question because one coroutine holds both.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, field_validator

from curate.config import Config
from curate.errors import ConfigError, CurateError, EndpointError, EndpointUnavailableError
from curate.packages import needed, of_extra
from curate.redaction import redacted
from curate.stages.caption.chat import Answer, Chat

PACKAGES = of_extra("endpoint", "openai")
(_OPENAI,) = PACKAGES

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Waits between attempts: doubled each time, shortened at random by up to half, longer where the endpoint asks."""

_PASSING = frozenset({408, 409, 425, 429})
"""Statuses below 500 that are worth another attempt."""

_SAID_CHARS = 300
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EndpointConfig(Config):
    """An endpoint and how it is asked.

    ``url``: base address, mostly ending in ``/v1``. ``api_key_env``: name of the environment variable that holds the
    key where the workers run; none where the endpoint wants none. ``concurrency``: questions under way at once, for
    each worker. ``timeout_s`` bounds one attempt as a whole, and the wait that an endpoint may ask for. ``retries``:
    further attempts where the endpoint is busy, does not answer or answers nothing of use.
    """

    placement: ClassVar[frozenset[str]] = frozenset({"api_key_env", "concurrency", "timeout_s", "retries"})

    url: str
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str = ""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 128
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    seed: int = 0

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        # ConfigError and not ValueError: pydantic would repeat what may be a secret.
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("must be an http or https address", subject="endpoint.url")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                "must hold neither user nor query",
                subject="endpoint.url",
                fix="Put the key into an environment variable and name it in `api_key_env`",
            )
        return url

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if name and not _VARIABLE.fullmatch(name):
            raise ConfigError(
                "is the name of an environment variable, not the key itself", subject="endpoint.api_key_env"
            )
        return name

    def key(self) -> str:
        """The key, empty where none is wanted; EndpointUnavailableError when its variable is not set here."""
        found = os.environ.get(self.api_key_env, "") if self.api_key_env else ""
        if self.api_key_env and not found:
            raise EndpointUnavailableError(
                f"the environment variable {self.api_key_env} is not set on this machine",
                subject=self.model,
                fix="Set it to the endpoint's key where the workers run",
            )
        return found

    def check_key(self, stage: str) -> None:
        """ConfigError where the variable of the key is not set here; for machines whose workers run on them too."""
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ConfigError(
                f"the environment variable {self.api_key_env} is not set",
                subject=f"{stage}.endpoint.api_key_env",
                fix="Set it to the endpoint's key, or leave `api_key_env` out where the endpoint wants none",
            )


class _Message(BaseModel):
    content: Annotated[str, Field(pattern=r"\S")]


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """The fields of an answer that are used."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    model: str | None = None
    usage: _Usage | None = None


class _PassingError(Exception):
    """An attempt that gave nothing; ``wait_s`` is what the endpoint asks to wait."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Endpoint:
    """A client of one endpoint, made on the worker. Its network runs in a thread of its own."""

    def __init__(self, config: EndpointConfig) -> None:
        openai = needed(_OPENAI)
        self._config = config
        self._key = config.key()
        # Without these the client would send what it finds in variables meant for another service.
        unsaid: dict[str, Any] = dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), openai.Omit())
        self._headers = {} if self._key else {"Authorization": openai.Omit()}
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=config.timeout_s,
            default_headers=unsaid,
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name="endpoint", daemon=True).start()
        weakref.finalize(self, _end, self._client, self._loop).atexit = False

    def ask(self, chats: Sequence[Chat]) -> list[Answer | CurateError]:
        """One answer for each chat in their order.

        EndpointUnavailableError in its place where no attempt gave one, EndpointError where the endpoint refused.
        """
        asked = asyncio.run_coroutine_threadsafe(self._ask_all(chats), self._loop)
        try:
            return asked.result()
        finally:
            asked.cancel()

    async def _ask_all(self, chats: Sequence[Chat]) -> list[Answer | CurateError]:
        free = asyncio.Semaphore(self._config.concurrency)

        async def one(chat: Chat) -> Answer | CurateError:
            async with free:
                try:
                    return await self._ask(chat)
                except EndpointError as error:
                    return error

        return await asyncio.gather(*(one(chat) for chat in chats))

    async def _ask(self, chat: Chat) -> Answer:
        attempt = 0
        while True:
            try:
                return await self._attempt(chat)
            except _PassingError as error:
                reason, wanted_s = str(error), error.wait_s
            if attempt == self._config.retries or wanted_s > self._config.timeout_s:
                break
            wait_s = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1)
            await asyncio.sleep(max(wait_s, wanted_s))
            attempt += 1
        raise EndpointUnavailableError(
            f"the endpoint gave no answer in {attempt + 1} attempts; the last: {reason}",
            subject=self._config.model,
            fix="Run the command again once it is up, or lower `concurrency`",
        )

    async def _attempt(self, chat: Chat) -> Answer:
        openai = needed(_OPENAI)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=self._config.model,
                    messages=list(chat),
                    max_tokens=self._config.max_tokens,
                    temperature=self._config.temperature,
                    seed=self._config.seed,
                    extra_headers=self._headers,
                )
            return self._read(_Completion.model_validate_json(raw.content))
        except (TimeoutError, openai.APITimeoutError):
            raise _PassingError(f"it took more than {self._config.timeout_s:g} s") from None
        except openai.APIStatusError as error:
            raise self._refused(error.status_code, error.response.headers, error.response.text) from None
        except openai.APIConnectionError as error:
            raise _PassingError(self._clean(f"the connection failed ({error.__cause__ or error})")) from None
        except ValidationError as error:
            missing = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:2])
            raise _PassingError(self._clean(f"it is not what such endpoints answer ({missing})")) from None

    def _read(self, found: _Completion) -> Answer:
        choice, usage = found.choices[0], found.usage or _Usage()
        return Answer(
            text=choice.message.content,
            model=self._clean(found.model or self._config.model),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            truncated=choice.finish_reason == "length",
        )

    def _refused(self, status: int, headers: Any, body: str) -> Exception:
        said = f"the endpoint answered {status}: {self._clean(body)}"
        if status in _PASSING or status >= 500:
            return _PassingError(said, _retry_after_s(headers.get("retry-after", "")))
        variable = self._config.api_key_env
        named = f"Check the key in {variable}" if variable else "Name the variable of its key in `api_key_env`"
        fix = {401: named, 403: named, 404: "Check `url` and `model`"}.get(status, "Check the keys of `endpoint`")
        return EndpointError(said, subject=self._config.model, fix=fix)

    def _clean(self, text: str) -> str:
        """What the endpoint said, in one short line, without the key it may have repeated."""
        known = text.replace(self._key, "***") if self._key else text
        return " ".join(redacted(known).split())[:_SAID_CHARS]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _end(client: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Connections are closed where they were opened: left over, they would fall into the loop of another client."""
    closed = asyncio.run_coroutine_threadsafe(client.close(), loop)
    closed.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))


def _retry_after_s(value: str) -> float:
    """Seconds that a ``Retry-After`` header asks to wait, 0 where it says nothing of use."""
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
