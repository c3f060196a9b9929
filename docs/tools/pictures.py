"""Makes the pictures of the documentation from what the tutorial leaves in a folder.

    python docs/tools/pictures.py FOLDER

docs/report.webp is the report's page in a browser, of a selection that drops the stillest quarter, with that slider
moved, over the bucket without the films whose licence nobody states (its ATTRIBUTION.txt says not to publish them);
docs/tutorial-clip.webp the contact sheet of a clip; docs/tutorial-samples.webp the two drawn clips side by side.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

DOCS = Path(__file__).parents[1]
sys.path.insert(0, str(DOCS.parent / "tests"))

from browser_kit import chromium, opened  # noqa: E402

VIEWPORT = {"width": 1280, "height": 830}
SLIDER_STEPS = 3
"""Presses of the right arrow: a few clips fewer are kept."""
RECIPE = """
name: moving
stages: [probe, cut, motion, quality, text, features, caption.template]
select: {name: moving, conditions: [{column: motion.v2d_px16, drop_lowest: 0.25}, {column: text.area_max, max: 0.07}]}
"""
ENLARGED = 12
GAP_PX = 24
NO_LICENCE = {"bikes.mp4", "carphone_pristine.mp4"}


def main(folder: Path) -> None:
    """Make those whose files are there; says which."""
    makers = {"report.webp": report, "tutorial-clip.webp": sheet, "tutorial-samples.webp": samples}
    for name, make in makers.items():
        target = DOCS / name
        make(folder, target)
        print(f"{name}: {target.stat().st_size / 1024:.0f} KiB")


def report(folder: Path, target: Path) -> None:
    """The threshold on motion, moved, with clips on either side of it."""
    videos = [str(path) for path in sorted((folder / "videos").iterdir()) if path.name not in NO_LICENCE]
    with tempfile.TemporaryDirectory() as scratch:
        recipe, corpus = Path(scratch, "moving.yaml"), Path(scratch, "corpus")
        recipe.write_text(RECIPE, encoding="utf-8")
        run = ["run", *videos, "--recipe", str(recipe), "--out", str(corpus), "--no-export"]
        subprocess.run([sys.executable, "-m", "curate", *run], check=True)
        _report(corpus / "reports" / "moving.html", target)


def _report(written: Path, target: Path) -> None:
    shot = target.with_suffix(".png")
    page_file = written.absolute().as_uri()
    with chromium() as browser, opened(browser, page_file, viewport=VIEWPORT, color_scheme="light") as page:
        page.locator("input[type=range]").first.focus()
        for _ in range(SLIDER_STEPS):
            page.keyboard.press("ArrowRight")
        head = page.locator("h3", has_text="motion.v2d_px16").first
        head.evaluate("e => scrollTo(0, e.getBoundingClientRect().top + scrollY - 125)")
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(500)
        page.screenshot(path=str(shot))
    Image.open(shot).save(target, quality=82, method=6)
    shot.unlink()


def sheet(folder: Path, target: Path) -> None:
    """What `curate show` drew."""
    picture = Image.open(folder / "clip.png").convert("RGB")
    picture.resize((1000, round(1000 * picture.height / picture.width))).save(target, quality=82, method=6)


def samples(folder: Path, target: Path) -> None:
    """Slow on the left, fast on the right, each pixel enlarged, as a moving picture."""
    slow, fast = (_frames(folder / name) for name in ("slow.mp4", "fast.mp4"))
    gap = np.full((len(slow[0]), GAP_PX, 3), 255, np.uint8)
    frames = [Image.fromarray(np.hstack([left, gap, right])) for left, right in zip(slow, fast, strict=True)]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=1000 // 6, loop=0, quality=90)


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    return [np.kron(picture, np.ones((ENLARGED, ENLARGED, 1), np.uint8)) for picture in pictures]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
