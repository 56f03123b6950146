"""A workdir that is in use, full, or gone."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import DataError
from labelfx.data.sources import folders
from labelfx.export import export
from labelfx.features import features
from labelfx.finished import weights
from labelfx.loop import metrics, results
from labelfx.loop.checkpoint import CheckpointError
from labelfx.loop.claims import claim
from labelfx.loop.mesh import announce, matmul_precision
from labelfx.loop.training import Loop

# TensorStore writes a checkpoint in many futures; the errors of those nobody waits for surface as warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
CONFIG = tiny("supervised", model={"name": "mlp", "hidden": (16,), "dtype": "float32"}, evals={"head": {}})
HOLD = """
import sys, time
from pathlib import Path
from labelfx.loop.claims import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    labelfx.train(CONFIG, folder)
    return folder


class Gpu:
    platform, device_kind = "gpu", "NVIDIA H100 80GB HBM3"

    def memory_stats(self):
        return {"bytes_limit": 60_000_000_000}


def test_the_start_says_on_what(capsys, monkeypatch):
    mesh = types.SimpleNamespace(size=8, local_devices=[Gpu()])
    announce(mesh, "bfloat16")
    announce(mesh, "float32")
    with jax.default_matmul_precision("highest"):
        announce(mesh, "float32")
    on = "on 8 x NVIDIA H100 80GB HBM3, 60 GB, "
    assert capsys.readouterr().err.splitlines() == [
        f"{on}bfloat16 ...",
        f"{on}float32, products of default precision ...",
        f"{on}float32, products of highest precision ...",
    ]


@pytest.mark.parametrize(
    ("driver", "platforms", "warned"), [(True, "", True), (True, "cpu", False), (False, "", False)]
)
def test_a_gpu_that_is_not_used_is_a_warning(driver, platforms, warned, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr("labelfx.loop.mesh.NVIDIA", tmp_path if driver else tmp_path / "none")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    results = labelfx.train(CONFIG, tmp_path / "run")
    assert re.search(r"^on 1 x cpu, [0-9.]+ GB, float32 \.\.\.$", capsys.readouterr().err, re.M)
    assert ("labelfx[gpu12]" in caplog.text) == warned
    assert results["device"] == {"kind": "cpu", "platform": "cpu", "count": 8, "matmul_precision": "default"}


def test_products_of_full_precision_in_training_and_evals(tmp_path, monkeypatch):
    seen = []
    for where, name in ((Loop, "run"), (results, "run_evals")):
        inner = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *args, inner=inner: (seen.append(matmul_precision()), inner(*args))[1])
    found = labelfx.train(CONFIG | {"matmul_precision": "highest"}, tmp_path)
    labelfx.evaluate(tmp_path)
    assert seen == 3 * ["highest"] and found["device"]["matmul_precision"] == "highest"
    assert matmul_precision() == "default"


def test_an_evaluation_keeps_what_is_known_of_the_training(finished, tmp_path):
    """Its devices too, which its cost hangs on; and a run that has not ended is not made to look as if it had."""
    shutil.copytree(finished, workdir := tmp_path / "run")
    path = workdir / "results.json"
    trained = json.loads(path.read_text())
    trained["device"] |= {"kind": "TPU v5e", "count": 8}
    path.write_text(json.dumps(trained))
    for found in (labelfx.evaluate(workdir), labelfx.evaluate(workdir, out=tmp_path / "elsewhere")):
        assert [found[key] for key in ("device", "training")] == [trained[key] for key in ("device", "training")]
    path.unlink()
    with pytest.raises(
        ConfigError, match=r"run: no results.json there: that run has not ended; the same train command"
    ):
        labelfx.evaluate(workdir)
    assert not path.exists()


def test_weights_are_as_they_were(tmp_path):
    """Scalars too; and whoever may read the folder's other files may read them."""
    tree = {"temperature": np.float32(3), "kernel": np.asfortranarray(np.ones((2, 3), jnp.bfloat16))}
    weights.save(tmp_path / "w", tree)
    assert {k: (v.shape, v.dtype) for k, v in weights.load(tmp_path / "w").items()} == {
        "temperature": ((), np.float32), "kernel": ((2, 3), jnp.bfloat16),
    }  # fmt: skip
    configs.write_text(tmp_path / "t", "")
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "t").stat().st_mode


def test_two_runs_in_one_workdir(finished, tmp_path):
    """The second is refused and changes nothing; elsewhere the first may be read; a killed one leaves nothing."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.name != ".lock"}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(workdir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    who = f"{workdir}: in use by process {process.pid} on {socket.gethostname()}; wait for its end or use another"
    for attempt in (
        lambda: labelfx.train(CONFIG, workdir),
        lambda: labelfx.train(CONFIG | {"seed": 1}, workdir),
        lambda: labelfx.evaluate(workdir),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(who)}"):
            attempt()
    assert before == {path: path.stat().st_mtime_ns for path in before}
    labelfx.evaluate(workdir, out=tmp_path / "elsewhere")
    labelfx.load(workdir)
    process.kill()
    process.communicate()
    labelfx.train(CONFIG, workdir)


def test_a_claim_ends_with_its_block(tmp_path):
    with claim(tmp_path), pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on "):
        with claim(tmp_path):
            pass
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), claim(tmp_path):
            raise KeyboardInterrupt


def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl", reason="no POSIX locks on this system")

    def flock(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with claim(tmp_path), claim(tmp_path):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: no lock (no locks available); see to it that no other run writes there"
    ] * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_cannot_be_read(workers, tmp_path, monkeypatch):
    """An unlabelled one is left out and the run goes on; a labelled one stops it in one line before its first step, or,
    damaged later, when it is read, from a process too."""
    for name in [f"{split}/{c}/{i}.png" for split in ("train", "test") for c in "ab" for i in range(4)] + [
        f"unlabelled/{i}.png" for i in range(8)
    ]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (8, 8), np.uint8)).save(path)
    (tmp_path / "images/unlabelled/3.png").write_bytes(b"not an image")
    data = {"name": f"folder:{tmp_path / 'images'}", "image_size": 8, "channels": 1}
    config = CONFIG | {"data": data, "labels": {"name": "all_labels"}, "workers": workers, "evals": {}}
    config |= {"batch": {"labelled": 8, "unlabelled": 8}}
    labelfx.train(config, tmp_path / "run")
    (tmp_path / "images/train/a/3.png").write_bytes(b"not an image")
    with pytest.raises(
        ConfigError, match=r"^config.data: \S*images: 1 labelled or test images .*: train/a/3.png: cannot"
    ):
        labelfx.train(config, tmp_path / "other")
    assert not (tmp_path / "other/config.json").exists()
    monkeypatch.setattr(folders, "_unreadable", lambda *_: {})
    with pytest.raises(DataError, match=r"^\S*train/a/3.png: cannot be read as an image \("):
        labelfx.train(config, tmp_path / "other")


def test_sigterm_when_the_workdir_is_gone(tmp_path, monkeypatch):
    real = metrics.Writer.write

    def write(self, step, scalars):
        real(self, step, scalars)
        if step == 4:
            shutil.rmtree(tmp_path / "run")
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(metrics.Writer, "write", write)
    gone = re.escape(f"{tmp_path}/run/checkpoints is gone, and what was in it")
    with pytest.raises(CheckpointError, match=rf"^checkpoint \d+ was not written: {gone}$"):
        labelfx.train(CONFIG | {"steps": 40, "save_every": 40}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def disk(tmp_path):
    """A real file system of 8 MB, and a function that leaves no room on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")

    def fill():
        with (folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    yield folder, fill
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("where", ["metrics", "weights", "results"])
def test_a_disk_that_fills_up_in_a_run(where, finished, disk, monkeypatch):
    """One line that says where; the checkpoint before stays, nothing is left half written, and a resume ends well."""
    folder, fill = disk
    target, name = {
        "metrics": (metrics.Writer, "write"), "weights": (weights, "save"), "results": (results, "run_evals"),
    }[where]  # fmt: skip
    real = getattr(target, name)

    def full(*arguments):
        if where == "metrics":  # more than the rest of the page that the file has already
            if arguments[1] == 4:
                fill()
            return real(*arguments[:2], arguments[2] | {"x" * 9999: 0.0})
        fill()
        return real(*arguments)

    monkeypatch.setattr(target, name, lambda *arguments: full(*arguments))  # so that a class binds it
    with pytest.raises(OSError) as error:
        labelfx.train(CONFIG, folder / "run")
    named = {"metrics": "run'", "weights": "0.safetensors'", "results": "results.json'"}[where]
    assert named in str(error.value) and "No space left" in str(error.value) and "\n" not in str(error.value)
    assert not (folder / "run/results.json").exists() and not list(folder.glob("run/**/*.tmp"))
    monkeypatch.undo()
    (folder / "filler").unlink()
    labelfx.train(CONFIG, folder / "run")
    ours, theirs = ((each / "weights/0.safetensors").read_bytes() for each in (folder / "run", finished))
    assert ours == theirs


def test_a_full_disk_leaves_what_was_there_before(finished, disk):
    folder, fill = disk
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    outputs = ("f.npz", "f.parquet", "e", "r.html", "run/results.json")
    for name in outputs:
        if not (folder / name).exists():
            (folder / name).write_bytes(b"before")
    kept = {name: (folder / name).read_bytes() for name in outputs}
    fill()
    for name, write in {
        "f.npz": lambda path: features(finished, "test", path),
        "f.parquet": lambda path: features(finished, "test", path),
        "e": lambda path: export(finished, path),
        "r.html": lambda path: labelfx.report([finished], path),
        "run/results.json": lambda path: labelfx.evaluate(path.parent),
    }.items():
        if name == "f.parquet":
            pytest.importorskip("pyarrow", reason="Parquet is written with pyarrow")
        if name == "e":
            pytest.importorskip("flatbuffers", reason="jax.export writes with flatbuffers")
        with pytest.raises(OSError, match=f"(?=.*{Path(name).name}).*No space left|No space left.*{name}"):
            write(folder / name)
        assert {each: (folder / each).read_bytes() for each in outputs} == kept
        assert not list(folder.rglob("*.tmp"))
