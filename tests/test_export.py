"""A finished run gives its encoder: to Python, to files of features, and to a file that runs without labelfx."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from recipes import ENCODER, tiny

import labelfx
from labelfx import config as configs
from labelfx import evals, models
from labelfx.config import BACKBONES, ConfigError
from labelfx.data import decoders
from labelfx.data.decode import decode
from labelfx.data.sources.images import digits
from labelfx.export import export
from labelfx.features import features
from labelfx.graphs import Graph
from labelfx.loop.run import load_variables

IMAGES = digits().test.inputs
SIZES = {
    "norm_groups": 1,
    "remat": False,
    "outputs": "features",
    "width": 4,
    "dtype": "bfloat16",
    "dropout": 0.5,
    "stem": "cifar",
    "hidden": (4,),
    "size": "ti",
    "patch": 4,
    "layers": 1,
    "heads": 2,
    "file": str(ENCODER),
    "image_size": 16,
    "frozen": False,
    "lora": {"rank": 1, "alpha": 1.0, "paths": ("attn",)},
    "norm": "stored",
    "description": None,
}
ALONE = """
import sys
sys.modules["labelfx"] = sys.modules["flax"] = None  # importing them fails
import jax, jax.export, numpy as np
images = np.load("images.npy")
with open("encoder", "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
assert exported.platforms == ("cpu", "cuda", "tpu")
for n in (1, 7):
    np.savez(f"{n}.npz", **exported.call(images[:n]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    labelfx.train(tiny("supervised"), folder)
    return folder


@pytest.fixture(scope="module")
def encoder(run):
    return labelfx.load(run)


def command(*words):
    return subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True)


def test_load_is_what_evals_see(run, encoder):
    backbone = models.backbone(load_variables(run))
    expected = evals.features(encoder.model, backbone, IMAGES)
    np.testing.assert_array_equal(encoder(IMAGES), expected)
    np.testing.assert_allclose(encoder(IMAGES[:3]), expected[:3], rtol=1e-6, atol=1e-6)
    probabilities = encoder.predict(IMAGES)
    head = load_variables(run)["params"]["head"]["Dense_0"]
    logits = expected.astype(np.float64) @ head["kernel"] + head["bias"]
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, softmax / softmax.sum(1, keepdims=True), atol=1e-6)
    assert probabilities.dtype == expected.dtype == np.float32
    assert (encoder.shape, encoder.dtype, encoder.class_names) == ((8, 8, 1), "uint8", tuple("0123456789"))


def test_what_cannot_be_loaded_or_encoded_is_one_line(run, encoder, tmp_path):
    for wrong in (IMAGES[..., 0], IMAGES[:0], IMAGES / np.float32(255), [], {}, None, IMAGES[0] / np.float32(255)):
        with pytest.raises(ValueError, match=r"this run's encoder takes uint8 \[N, 8, 8, 1\] with N > 0"):
            encoder(wrong)
    with pytest.raises(FileNotFoundError, match="no config.json there; give the workdir of a run"):
        labelfx.load(tmp_path)
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="that run has not finished"):
        labelfx.load(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "weights").symlink_to(run / "weights")
    with pytest.raises(ConfigError, match="python -m labelfx.evaluate writes it again"):
        labelfx.load(tmp_path)
    with pytest.raises(ValueError, match="trains no classifier"):
        dataclasses.replace(encoder, head=None).predict(IMAGES)


def test_an_exported_file_runs_without_labelfx(run, encoder, tmp_path):
    pytest.importorskip("flatbuffers", reason="jax.export writes with flatbuffers")
    np.save(tmp_path / "images.npy", IMAGES[:7])
    export(run, tmp_path / "encoder")
    assert not list(tmp_path.glob("*.tmp"))
    alone = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    for n in (1, 7):
        with np.load(tmp_path / f"{n}.npz") as found:
            np.testing.assert_allclose(found["features"], encoder(IMAGES[:n]), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found["probabilities"], encoder.predict(IMAGES[:n]), atol=1e-6)


@pytest.mark.parametrize("name", sorted(configs.names(BACKBONES)))
def test_every_backbone_takes_any_number_of_rows(name):
    takes = configs.parameters(configs.function(BACKBONES, name))
    graph = Graph(np.ones((9, 5), np.uint8), np.array([[0, 1], [1, 0]], np.int32))
    given = {"vocab_size": 16, "graph": graph, "weights": None}
    model = configs.function(BACKBONES, name)(*(given[key] for key in takes[0]), **{k: SIZES[k] for k in takes[1]})
    ids = {"vocab_size", "graph"} & {*takes[0]}
    row = (np.int32, (1 if "graph" in ids else 6,)) if ids else (np.float32, (8, 8, 3))
    shaped = lambda n: jax.ShapeDtypeStruct((n, *row[1]), row[0])  # noqa: E731
    (n,) = jax.export.symbolic_shape("n")
    variables = jax.eval_shape(model.init, jax.random.key(0), shaped(1))
    outputs, _ = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, shaped(n))
    assert outputs.ndim == 2 and outputs.shape[0] == n


@pytest.fixture
def folder(tmp_path):
    """Two digits as images, one of them large and in colour, and what is none."""
    root = tmp_path / "images"
    (root / "a" / "b").mkdir(parents=True)
    Image.fromarray(IMAGES[0, ..., 0]).save(root / "a" / "b" / "one.png")
    Image.fromarray(IMAGES[1, ..., 0]).convert("RGB").resize((32, 24)).save(root / "two.png")
    (root / "a" / "broken.png").write_bytes((root / "two.png").read_bytes()[:60])
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden").write_text("")
    return root


def test_features_of_a_folder(run, encoder, folder, tmp_path):
    words = ["labelfx.features", f"--workdir={run}", f"--images={folder}", f"--out={tmp_path / 'found.npz'}"]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert f"{folder}: 2 of 4 files left out: a/broken.png: cannot be read as an image (" in done.stderr
    assert done.stderr.endswith("); notes.txt: not an image\n")
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        assert found["names"].tolist() == ["a/b/one.png", "two.png"]
        assert found["features"].shape == (2, encoder(IMAGES[:1]).shape[1])
        np.testing.assert_allclose(found["features"][:1], encoder(IMAGES[:1]), rtol=1e-6, atol=1e-6)


def test_files_left_out_are_said_in_their_order(run, folder, tmp_path, monkeypatch, capsys):
    """Whichever thread is done first, and in the words of a run's own folder."""
    (folder / "c.png").touch()
    (folder / "d.heic").touch()

    def slow_at_first(path, shape, decode=decode):
        time.sleep(0.3 * (path.name == "broken.png"))
        return decode(path, shape)

    monkeypatch.setattr(decoders, "FEW", 10**9)  # threads, which see what stands in the place of a function
    monkeypatch.setattr(decoders, "decode", slow_at_first)
    features(run, str(folder), tmp_path / "found.npz")
    (line,) = capsys.readouterr().err.splitlines()
    names = [part.split(":")[0] for part in line.removeprefix(f"{folder}: 4 of 6 files left out: ").split("; ")]
    assert names == ["a/broken.png", "c.png", "d.heic", "notes.txt"]


def test_features_of_a_split_as_parquet(run, encoder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is written with pyarrow")
    names, found = features(run, "test", tmp_path / "test.parquet")
    np.testing.assert_array_equal(found, encoder(IMAGES))
    table = parquet.read_table(tmp_path / "test.parquet")
    assert table["names"].to_pylist() == names.tolist() == [f"test/{row}" for row in range(len(IMAGES))]
    np.testing.assert_array_equal(np.stack(table["features"].to_pylist(), dtype=np.float32), found)


def test_what_cannot_be_written_leaves_nothing(run, folder, tmp_path, monkeypatch):
    for path in (folder / "a" / "b" / "one.png", folder / "two.png"):
        path.unlink()
    with pytest.raises(ConfigError, match="not one of its 2 files can be read as an image"):
        features(run, folder, tmp_path / "found.npz")
    with pytest.raises(ConfigError, match="must end in .npz or .parquet"):
        features(run, folder, tmp_path / "found.csv")
    with pytest.raises(ConfigError, match="neither a folder nor 'train' or 'test'"):
        features(run, tmp_path / "nowhere", tmp_path / "found.npz")
    with pytest.raises(FileNotFoundError):
        export(run, tmp_path / "nowhere" / "encoder")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow .*; pip install 'labelfx\[export\]'"):
        features(run, folder, tmp_path / "found.parquet")
    if Path("/dev/full").exists():
        os.symlink("/dev/full", tmp_path / "found.npz.tmp")  # a disk without space
        with pytest.raises(OSError, match="No space left"):
            features(run, "test", tmp_path / "found.npz")
    assert not list(tmp_path.glob("found*"))
