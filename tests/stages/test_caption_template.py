"""The stand-in caption: one clean sentence of the facts in the cells, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.records import Outcome
from curate.stages.caption.template import TemplateCaption, TemplateConfig, with_article

CAMERAS = [
    "static",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll",
    "handheld",
]
STAGE = TemplateCaption(TemplateConfig())


def motion(camera="static", speed=0.0, objects=0.0, freeze=0.0, slideshow=0.0):
    return {
        "camera": camera,
        "speed_width_s": speed,
        "object_speed_width_s": objects,
        "freeze_ratio": freeze,
        "slideshow": slideshow,
    }


@pytest.mark.parametrize(
    ("moved", "classes", "text", "caption"),
    [
        (motion(), [], 0.0, "A static shot."),
        (motion("pan_left", 0.02), ["espresso"], 0.0, "A slow pan to the left showing an espresso."),
        (motion("zoom_in", 0.1), ["tabby", "unicycle"], 0.0, "A steady zoom in showing a tabby and a unicycle."),
        (motion("tilt_up", 0.3), [], 0.12, "A fast tilt upwards, with text over about 12 % of the picture."),
        (
            motion(objects=0.02),
            ["sunglasses"],
            0.0,
            "A static shot showing sunglasses, with slow movement in the scene.",
        ),
        (
            motion("handheld", 0.1, 0.3),
            ["umbrella"],
            0.006,
            "A handheld shot showing an umbrella, with fast movement in the scene "
            "and text over about 1 % of the picture.",
        ),
        (motion(freeze=1.0, objects=0.5), ["daisy"], 0.0, "A still picture showing a daisy."),
        (motion("pan_left", slideshow=0.95), [], 0.0, "A slideshow of still pictures."),
    ],
)
def test_sentences(moved, classes, text, caption):
    assert STAGE.sentence(moved, classes, text) == caption


@settings(deadline=None)
@given(
    st.sampled_from(CAMERAS),
    st.floats(0, 3),
    st.floats(0, 3),
    st.floats(0, 1),
    st.lists(st.sampled_from(["espresso", "tabby", "binoculars", "hourglass"]), max_size=3, unique=True),
    st.floats(0, 1),
)
def test_always_one_sentence_and_labelled(camera, speed, objects, freeze, classes, text):
    sentence = STAGE.sentence(motion(camera, speed, objects, freeze), classes, text)
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert sentence.count(".") == 1
    assert "  " not in sentence
    assert all(name in sentence for name in classes)
    assert ("text" in sentence) == (text >= 0.005)


def test_cell_is_labelled_a_stand_in(clip_item):
    features = {"classes": ["espresso", "daisy"], "class_probs": [0.6, 0.35]}
    cells = {"motion": motion(), "features": features, "text": {"area_max": 0.0}}
    (cell,) = STAGE.process([clip_item(cells=cells)])
    assert cell.outcome is Outcome.OK
    assert cell.values == {"caption": "A static shot showing an espresso.", "is_stand_in": True, "source": "template"}


def test_every_camera_class_is_worded():
    captions = {STAGE.sentence(motion(camera, 0.1), [], 0.0) for camera in CAMERAS}
    assert len(captions) == len(CAMERAS)


@pytest.mark.parametrize(
    ("name", "worded"),
    [("hourglass", "an hourglass"), ("house finch", "a house finch"), ("European gallinule", "a European gallinule")],
)
def test_articles(name, worded):
    assert with_article(name) == worded


def test_asks_for_no_pixels():
    assert STAGE.views() == {}
    assert STAGE.reads == ("motion", "features", "text")
