"""Pictures pasted on a canvas, against a loop; runs on them from the data to what is loaded and exported."""

import jax
import numpy as np
import pytest
from recipes import recipe, tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Split
from labelfx.data.sources import digits, pasted
from labelfx.data.sources.scenes import Scenes, boxes, dense, paste, several
from labelfx.hardware import blank

KEYS = dict(
    of="digits",
    data_dir=None,
    canvas=14,
    low=0,
    high=3,
    background=0.0,
    label="dense",
    train=60,
    test=40,
    seed=3,
)


def test_what_is_said_is_what_can_be_seen():
    """One scene by hand: a 1 of which a 0 leaves a corner, and a 2 that is hidden."""
    found = np.full((2, 4, 5), -1, np.int32)
    found[0, 1:3, 1:4], found[0, 1, 1] = 2, 0
    scenes = Scenes(np.zeros((2, 4, 5, 1), np.uint8), found, np.array([[1, 2, 0], [1, 1, 1]], np.int32))
    assert several(scenes, 3).tolist() == [[1, 1, 0], [0, 0, 0]]
    expected = np.full((2, 4, 5), 3)
    expected[0, 1:3, 1:4], expected[0, 1, 1] = 0, 1
    assert dense(scenes, 3).tolist() == expected.tolist()
    hidden = [-1, 0, 0, 0, 0]
    assert boxes(scenes, 3).tolist() == [[[1, 1, 1, 1, 1], [0, 1, 1, 2, 3], hidden], [hidden] * 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_later_pictures_cover_earlier_ones(channels):
    """Every pixel is that of the last picture which has ink there; a picture of colours has it everywhere."""
    rng = np.random.default_rng(0)
    pictures = Split(rng.integers(0, 3, (7, 4, 4, channels)).astype(np.uint8) * 100, np.arange(7, dtype=np.int32))
    scenes = paste(pictures, np.random.default_rng(1), 200, 9, 0, 4, 0.1)
    labels, seen = dense(scenes, 7), set()
    assert scenes.inputs[labels == 7].max() <= 26 and (labels == 7).any(axis=(1, 2)).all()
    for row, column in np.ndindex(200, 4):
        pixels = scenes.found[row] == column
        if not pixels.any():
            continue
        picture = pictures.inputs[scenes.classes[row, column]]
        y, x = np.nonzero(pixels)
        fits = [
            (top, left)
            for top, left in np.ndindex(6, 6)
            if (y >= top).all()
            and (y < top + 4).all()
            and (x >= left).all()
            and (x < left + 4).all()
            and (picture[y - top, x - left] == scenes.inputs[row][y, x]).all()
        ]
        assert fits, (row, column)
        seen |= set(fits)
        if channels == 1:
            assert (scenes.inputs[row][y, x] > 0).all()
    assert len(seen) == 36  # wherever it lies within
    counts = [len(set(row[row >= 0].tolist())) for row in scenes.found]
    assert min(counts) == 0 and max(counts) == 4


def test_rows_are_a_function_of_the_seed_and_their_split_has_its_own_pictures():
    one, again, other = (pasted(**KEYS | changes) for changes in ({}, {}, {"seed": 4}))
    assert one.task == "dense" and one.num_outputs == 11 and one.class_names == (*map(str, range(10)), "background")
    for left, right in zip(one[:2], again[:2], strict=True):
        np.testing.assert_array_equal(left.inputs, right.inputs)
        np.testing.assert_array_equal(left.labels, right.labels)
    assert (one.train.inputs != other.train.inputs).any()
    assert one.train.inputs.dtype == np.uint8 and len(one.train.inputs) == 60 and len(one.test.inputs) == 40
    kinds = {label: pasted(**KEYS | {"label": label}) for label in ("one", "several", "boxes")}
    assert {name: each.task for name, each in kinds.items()} == {"one": "class", "several": "several", "boxes": "boxes"}
    for each in kinds.values():
        np.testing.assert_array_equal(each.train.inputs, one.train.inputs)
    present = [sorted({*row.ravel().tolist()} - {10}) for row in one.train.labels]
    assert [np.flatnonzero(row).tolist() for row in kinds["several"].train.labels] == present
    # Alone on black a picture can be told: it is one of its own split.
    alone = pasted(**KEYS | {"low": 1, "high": 1, "canvas": 8})
    for split, own in zip(alone[:2], digits()[:2], strict=True):
        assert {each.tobytes() for each in split.inputs} <= {each.tobytes() for each in own.inputs}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"low": 4}, "low = 4: must be at most high = 3"),
        ({"canvas": 7}, "canvas = 7: must be at least 8, the side of the pictures of digits"),
        ({"data_dir": "here"}, "data_dir = 'here': must be None with of = 'digits'"),
        ({"of": "cifar10"}, "data_dir = None: must be a folder with of = 'cifar10'"),
        ({"of": "fashion_mnist", "data_dir": "nowhere"}, "nowhere: no train-images-idx3-ubyte"),
    ],
)
def test_scenes_that_cannot_be_made(changes, expected):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        pasted(**KEYS | changes)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"head": {"name": "linear"}}, "config.method: .*logits must be"),
        ({"model": {"name": "conv3", "width": 2, "dtype": "float32"}}, "take config.model.outputs = 'map'"),
        ({"head": {"name": "dense", "size": (8, 16)}}, "config.method: .*logits must be"),
        ({"head": {"name": "dense", "size": (16,)}}, r"config.head: size = \(16,\): must be \(H, W\)"),
    ],
)
def test_parts_that_do_not_fit_dense_labels_are_named(changes, expected, tmp_path):
    with pytest.raises(ConfigError, match=expected) as error:
        labelfx.train(tiny("pasted_pixels", **changes), tmp_path)
    assert "\n" not in str(error.value)


def test_flexmatch_and_randaugment_refuse_pixels(tmp_path):
    config = tiny("pasted_fixmatch")
    config["method"]["pseudo_labels"] = {"name": "flexmatch", "threshold": 0.9, "warmup": True}
    with pytest.raises(ConfigError, match="config.method: .*flexmatch remembers one pseudo-label of each image"):
        labelfx.train(config, tmp_path)
    config = tiny("pasted_fixmatch")
    keys = dict(padding=1, flip=False, operations=1, magnitude=1.0, probability=0.5, cutout=0.0)
    config["method"]["strong"] = {"name": "randaugment", **keys}
    with pytest.raises(ConfigError, match="config.method: .*does not say where its pixels come from"):
        labelfx.train(config, tmp_path)


def test_a_run_on_pixels_from_data_to_export(tmp_path):
    results = labelfx.train(tiny("pasted_pixels", evals={"mean_iou": {}, "rankme": {}}), tmp_path)
    encoder = labelfx.load(tmp_path)
    data = configs.build(configs.DATA, {**recipe("pasted_pixels")["data"]})
    images, labels = data.test.inputs[:70], data.test.labels
    assert encoder(images).shape == (70, 8)  # the mean of the map
    probabilities = encoder.predict(images)
    assert probabilities.shape == (70, 16, 16, 11) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    found = encoder.predict(data.test.inputs).argmax(-1)
    assert results["metrics"]["mean_iou"]["pixel_accuracy"] == pytest.approx(np.mean(found == labels), abs=1e-4)
    outputs = jax.jit(encoder.outputs)(images[:3])
    np.testing.assert_allclose(outputs["features"], encoder(images[:3]), atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], probabilities[:3], atol=1e-5)


@pytest.mark.parametrize("label", ["one", "several", "dense", "boxes"])
def test_a_plan_knows_the_shapes_without_the_pictures(label):
    keys = KEYS | {"label": label}
    real = pasted(**keys)
    config = configs.check(tiny("pasted_pixels", data={"name": "pasted", **keys}))
    found = blank.blank_dataset(config, None, None, None)
    assert found.task == real.task and found.num_outputs == real.num_outputs
    for name in ("inputs", "labels"):
        ours, theirs = getattr(found.train, name), getattr(real.train, name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
