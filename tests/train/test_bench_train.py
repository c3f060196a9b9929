"""The benchmark of the trainer runs on a CPU, on the small stage, as it does on a GPU; its peer is a fair one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import bench_train

from curate.train.network import UNetNetwork, build_unet
from curate.train.plan import step_flops
from curate.train.recipe import load_train_recipe

QUICK = ["--tiny", "--stages", "tiny-image-to-video", "--steps", "1", "--warmup", "0"]


def test_ways_take_steps_and_say_what_they_cost(tmp_path, capsys):
    ways = ["checkpointing", "peer-checkpointing"]  # compiling takes half a minute: `make bench` does it
    rows = bench_train.main([*QUICK, "--ways", *ways, "--peak-tflops", "0.1", "--profile", str(tmp_path / "kernels")])
    recipe = load_train_recipe("tiny-image-to-video", ["data.batch=1"])
    flops = step_flops(recipe, build_unet("tiny-wide").config, 1)
    assert [row[1:4] for row in rows] == [["16x16x6", "1", way] for way in ways]
    for row in rows:
        step_s, share = float(row[4].split()[0]), float(row[6].rstrip("%")) / 100
        assert float(row[5]) == pytest.approx(1 / step_s, rel=0.01)
        assert share == pytest.approx(flops / step_s / 1e11, rel=0.05, abs=1e-3)
    assert float(rows[0][-1]) > 0
    assert (tmp_path / "kernels").read_text().count("aten::mm") >= len(ways)
    assert capsys.readouterr().out.count("`tiny-image-to-video`") == 2 * len(ways)


def test_a_way_that_does_not_fit_says_so_and_the_others_go_on(monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench_train, "recompute_units", full)
    first, second = bench_train.main([*QUICK, "--ways", "checkpointing", "plain"])
    assert first[4:] == ["out of memory", "-", "-", "-", "-"]
    assert float(second[5]) > 0
    assert second[6] == "-"  # nobody knows this machine's peak


def test_the_peer_computes_the_same_loss():
    """At the same weights, noise and conditions, by other code."""
    setting = bench_train.made("tiny-image-to-video", bench_train._arguments(QUICK), torch.device("cpu"))
    examples, unet = setting.examples(), setting.unet()
    objective, one = examples.objective, examples.of(setting.batch, [0], setting.device)
    with torch.no_grad():
        output = UNetNetwork(unet)(objective.noisy(one.x0, one.noise, one.level), objective.time(one.level), one.cond)
        ours = objective.loss(output, one.x0, one.noise, one.level).mean()
        cond = one.cond.context, one.cond.added
        theirs = bench_train.weighted_loss(unet.plain(), one.x0, one.level, one.noise, one.cond.concat, cond)
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-4)
