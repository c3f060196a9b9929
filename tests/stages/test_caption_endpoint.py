"""The client of chat endpoints against a real server that fails in all the ways servers do."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate

import pytest
from endpoint_kit import FAULTS, Script, served, texts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config import parse_config
from curate.errors import ConfigError, EndpointError, EndpointUnavailableError, is_transient
from curate.stages.caption import endpoint as module
from curate.stages.caption.chat import Answer
from curate.stages.caption.endpoint import Endpoint, EndpointConfig

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


def echo(asked):
    """The model of these tests says the last text it was told once more."""
    return f"said {texts_of(asked)[-1]}"


def chats(n):
    return [[{"role": "user", "content": f"question {number}"}] for number in range(n)]


def config(url, **more):
    return EndpointConfig(**{"url": url, "model": "echo", "timeout_s": 5.0, "concurrency": 8, **more})


def ask(script, n, **more):
    with served(script) as url:
        return Endpoint(config(url, **more)).ask(chats(n))


def expected(number):
    return Answer(f"said question {number}", "echo-served", 2, 3, truncated=False)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_loses_nothing(fault):
    script = Script(echo, faults=lambda question, attempt: fault if attempt < 2 and "question 1" in question else "")
    found = ask(script, 3, retries=2, timeout_s=0.5)
    assert found == [expected(number) for number in range(3)]
    assert script.attempts == {"said question 0": 1, "said question 1": 3, "said question 2": 1}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_fails_its_own_question_and_is_worth_another_run(fault):
    script = Script(echo, faults=lambda question, attempt: fault if "question 1" in question else "")
    found = ask(script, 3, retries=1, timeout_s=0.5)
    assert [found[0], found[2]] == [expected(0), expected(2)]
    assert type(found[1]) is EndpointUnavailableError
    assert "2 attempts" in str(found[1])
    assert is_transient(type(found[1]).__name__)
    assert script.attempts["said question 1"] == 2


@pytest.mark.parametrize(
    ("status", "fix"),
    [(400, "endpoint"), (401, "api_key_env"), (403, "api_key_env"), (404, "model"), (422, "endpoint")],
)
def test_a_refusal_is_said_at_once(status, fix):
    script = Script(echo, faults=lambda question, attempt: str(status) if "question 1" in question else "")
    found = ask(script, 3)
    assert [found[0], found[2]] == [expected(0), expected(2)]
    assert type(found[1]) is EndpointError
    assert f"answered {status}" in found[1].message
    assert fix in found[1].fix
    assert not is_transient("EndpointError")
    assert script.attempts["said question 1"] == 1


@pytest.mark.parametrize("retry_after", ["1", "date"])
def test_an_endpoint_may_ask_for_a_pause(retry_after):
    script = Script(echo, faults=lambda question, attempt: "throttled" if not attempt else "")
    began = time.time()
    script.retry_after = formatdate(began + 2, usegmt=True) if retry_after == "date" else retry_after
    assert ask(script, 1) == [expected(0)]
    assert time.time() - began > 0.9


def test_too_long_a_pause_ends_the_attempts():
    script = Script(echo, faults=lambda question, attempt: "throttled", retry_after="3600")
    began = time.monotonic()
    (found,) = ask(script, 1, retries=5)
    assert isinstance(found, EndpointUnavailableError)
    assert time.monotonic() - began < 3
    assert script.attempts["said question 0"] == 1


def test_questions_travel_at_once_and_no_more_than_allowed():
    script = Script(echo, delay_s=lambda question, attempt: 0.2)
    began = time.monotonic()
    assert ask(script, 24, concurrency=8) == [expected(number) for number in range(24)]
    assert time.monotonic() - began < 24 * 0.2 / 2
    assert 4 <= script.most_at_once <= 8


def test_an_attempt_is_bounded_as_a_whole_and_not_from_byte_to_byte():
    script = Script(echo, faults=lambda question, attempt: "silent", silent_s=30.0)
    began = time.monotonic()
    (found,) = ask(script, 1, retries=1, timeout_s=0.3)
    assert "more than 0.3 s" in str(found)
    assert time.monotonic() - began < 5


def test_nobody_at_home():
    with served(Script(echo)) as url:
        pass
    (found,) = Endpoint(config(url, retries=1)).ask(chats(1))
    assert isinstance(found, EndpointUnavailableError)
    assert "connection failed" in str(found)


def test_what_is_sent():
    script = Script(echo)
    ask(script, 1, max_tokens=17, temperature=0.5, seed=3)
    (asked,) = script.asked
    assert asked == {
        "model": "echo",
        "messages": [{"role": "user", "content": "question 0"}],
        "max_tokens": 17,
        "temperature": 0.5,
        "seed": 3,
    }


def test_keys_meant_for_others_are_not_sent(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, f"other-{name.lower()}")
    script = Script(echo)
    assert ask(script, 1) == [expected(0)]
    (headers,) = script.headers
    assert "authorization" not in headers
    assert not [value for value in headers.values() if "other-" in value]


def test_the_key_opens_the_endpoint_and_shows_nowhere(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    assert ask(Script(echo, key=KEY), 1, api_key_env="MY_KEY") == [expected(0)]
    monkeypatch.setenv("MY_KEY", KEY + "-wrong")
    (found,) = ask(Script(echo, key=KEY), 1, api_key_env="MY_KEY")
    assert "answered 401: " in str(found)
    assert "MY_KEY" in found.fix
    assert "***" in found.message
    assert KEY not in str(found) + caplog.text + repr(found)


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(EndpointUnavailableError, match="MY_KEY is not set"):
        Endpoint(config("http://127.0.0.1:9/v1", api_key_env="MY_KEY"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": f"http://user:{KEY}@127.0.0.1/v1"},
        {"url": f"http://127.0.0.1/v1?key={KEY}"},
        {"url": f"ftp://{KEY}"},
        {"api_key_env": KEY},
    ],
)
def test_a_key_in_the_configuration_is_refused_and_not_repeated(wrong):
    with pytest.raises(ConfigError) as caught:
        parse_config(EndpointConfig, {"url": "http://127.0.0.1/v1", "model": "m", **wrong}, "endpoint")
    assert KEY not in str(caught.value)


@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(1, 20),
    faults=st.dictionaries(st.tuples(st.integers(0, 19), st.integers(0, 1)), st.sampled_from(FAULTS[:-2]), max_size=8),
    delays=st.lists(st.integers(0, 30), min_size=20, max_size=20),
    concurrency=st.integers(1, 20),
)
def test_answers_belong_to_their_questions_however_they_come(n, faults, delays, concurrency):
    def number(question):
        return int(question.rpartition(" ")[2])

    script = Script(
        echo,
        faults=lambda question, attempt: faults.get((number(question), attempt), ""),
        delay_s=lambda question, attempt: delays[number(question)] / 1000,
    )
    assert ask(script, n, concurrency=concurrency, timeout_s=0.8) == [expected(number) for number in range(n)]
