"""Libraries that say nothing but errors, for a while."""

from __future__ import annotations

from diffusers.utils import logging as of_diffusers
from transformers.utils import logging as of_transformers

from curate.train.quiet import quiet_libraries


def test_libraries_are_quiet_within_and_as_they_were_after():
    def heard() -> list[tuple[int, bool]]:
        return [(of.get_verbosity(), of.is_progress_bar_enabled()) for of in (of_diffusers, of_transformers)]

    of_diffusers.set_verbosity_info()
    of_transformers.enable_progress_bar()
    before = heard()
    with quiet_libraries():
        assert heard() == [(of_diffusers.ERROR, False), (of_transformers.logging.ERROR, False)]
    assert heard() == before
    of_diffusers.set_verbosity_warning()
