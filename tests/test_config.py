"""Configurations refuse what they do not know and say which key was meant."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from curate.config import Config, nearest, parse_config
from curate.errors import ConfigError


class Inner(Config):
    threshold: float = Field(0.5, ge=0)
    rate_fps: float = 1.0


class Outer(Config):
    min_len_s: float = 2.0
    inner: Inner = Inner()
    passes: tuple[Inner, ...] = ()


def refused(data: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, data, "cut")
    return str(caught.value)


def test_nothing_given_means_the_defaults():
    assert parse_config(Outer, None, "cut") == parse_config(Outer, {}, "cut") == Outer()


@pytest.mark.parametrize(
    ("data", "path", "meant"),
    [
        ({"min_len": 1}, "'cut.min_len'", "'min_len_s'"),
        ({"inner": {"treshold": 1}}, "'cut.inner.treshold'", "'threshold'"),
        ({"passes": [{}, {"rate": 1}]}, "'cut.passes.1.rate'", "'rate_fps'"),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_nearest_one(data, path, meant):
    text = refused(data)
    assert f"unknown key {path}" in text and f"did you mean {meant}?" in text


def test_a_key_like_no_other_gets_the_whole_list():
    assert "valid: rate_fps, threshold" in refused({"inner": {"zzz": 1}})


def test_a_wrong_value_is_named_with_its_path_and_shown():
    text = refused({"inner": {"threshold": -1}})
    assert "cut.inner.threshold" in text and "greater than or equal to 0" in text and "(got -1)" in text


def test_all_faults_are_told_at_once():
    text = refused({"min_len": 1, "inner": {"threshold": "much"}})
    assert "cut.min_len" in text and "cut.inner.threshold" in text


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().min_len_s = 3.0


def test_nearest_helps_with_misspelling_and_lists_otherwise():
    assert nearest("motoin", ["motion", "text"]) == "did you mean 'motion'?"
    assert nearest("xyz", ["text", "motion"]) == "valid: motion, text"
