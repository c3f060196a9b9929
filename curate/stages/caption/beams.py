"""Beam search over next-word scores, the way open_clip lets CoCa write: one search per picture, all of them in a batch.

As upstream, what is summed are the network's raw scores (not their log-probabilities), a text's worth is its sum over
its length, and a search ends when no text on its way can become better than the worst of those that ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curate.errors import StageError

if TYPE_CHECKING:
    import torch

_NEVER = -1e9
"""Score of the beams that start as copies of the first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``start`` and ``end`` are token ids; ``max_tokens`` and ``min_tokens`` count both, as upstream does."""

    start: int
    end: int
    beams: int
    max_tokens: int
    min_tokens: int


Candidate = tuple[float, int, int]
"""Sum of scores, the beam that it goes on from, the token that it adds."""


@dataclass(slots=True)
class _Search:
    """The search for one picture. ``ended`` holds (worth, tokens), at most as many as there are beams."""

    beams: int
    ended: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def end(self, worth: float, tokens: list[int]) -> None:
        """Keep a text unless all that are kept are better."""
        if len(self.ended) == self.beams:
            worst = min(self.ended, key=lambda text: text[0])
            if worth <= worst[0]:
                return
            self.ended.remove(worst)
        self.ended.append((worth, tokens))

    def step(
        self, found: list[tuple[float, int, int]], texts: list[list[int]], end: int
    ) -> list[tuple[float, int, int]]:
        """Take candidates, best first, twice as many as beams; give those that go on."""
        length = len(texts[0]) + 1
        going: list[Candidate] = []
        for rank, (total, beam, token) in enumerate(found):
            if token != end:
                going.append((total, beam, token))
            elif rank < self.beams:
                self.end(total / length, texts[beam])
            if len(going) == self.beams:
                break
        worst = min((worth for worth, _ in self.ended), default=0.0)
        self.done = len(self.ended) == self.beams and worst >= found[0][0] / length
        return going


def search(logits_of: Callable[[torch.Tensor], torch.Tensor], n: int, limits: Limits) -> list[list[int]]:
    """The best text for each of ``n`` pictures: token ids without those of start and end.

    ``logits_of`` takes token ids int64 (n * beams, length), the beams of a picture side by side, and gives scores of
    the next token, float (n * beams, vocabulary).
    """
    import torch

    k = limits.beams
    searches = [_Search(k) for _ in range(n)]
    texts = [[limits.start] for _ in range(n * k)]
    totals = [0.0, *[_NEVER] * (k - 1)] * n
    for length in range(1, limits.max_tokens):
        logits = logits_of(torch.tensor(texts)).float()
        if length < limits.min_tokens:
            logits[:, limits.end] = -torch.inf
        vocabulary = logits.shape[1]
        sums = logits + torch.tensor(totals, device=logits.device).unsqueeze(1)
        best = sums.view(n, k * vocabulary).topk(2 * k, dim=1)
        if not best.values.isfinite().all():
            raise StageError("the captioner's scores are not all numbers")
        rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        grown: list[list[int]] = []
        for picture, (values, indices) in enumerate(rows):
            own = texts[picture * k : (picture + 1) * k]
            going = [(0.0, 0, limits.end)] * k
            if not searches[picture].done:
                found = [(value, *divmod(index, vocabulary)) for value, index in zip(values, indices, strict=True)]
                going = searches[picture].step(found, own, limits.end)
            totals[picture * k : (picture + 1) * k] = [total for total, _, _ in going]
            grown += [[*own[beam], token] for _, beam, token in going]
        texts = grown
        if all(found.done for found in searches):
            break
    return [_best(found, texts[i * k : i * k + k], totals[i * k : i * k + k]) for i, found in enumerate(searches)]


def _best(found: _Search, texts: list[list[int]], totals: list[float]) -> list[int]:
    """The text of the highest worth; those still on their way count where the search came to no end."""
    if not found.done:
        for text, total in zip(texts, totals, strict=True):
            found.end(total / len(text), text)
    # The later of two equals, as upstream has it.
    return max(reversed(found.ended), key=lambda text: text[0])[1][1:]
