"""Decoders: the same images and errors as in the process itself, and processes that nobody notices."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelfx.data import DataError, decoders
from labelfx.data.files import warn_once
from labelfx.data.sources import folders

SHAPE = (6, 5, 3)

# As a user may write one: with JAX at work, and without `if __name__ == "__main__"`.
SCRIPT = """
import sys
import jax.numpy
jax.numpy.zeros(1).block_until_ready()
from labelfx.data import decoders
print("begins", flush=True)
decoders.FEW, decoders.usable_cores = 0, lambda: 2
for number, _ in enumerate(decoders.decoded([sys.argv[1]] * int(sys.argv[2]), (6, 5, 3))):
    if number == 100:
        print("goes on", flush=True)
print("ends", flush=True)
"""


@pytest.fixture
def pool(monkeypatch):
    """Two decoders, used from the first image on."""
    monkeypatch.setattr(decoders, "FEW", 0)
    monkeypatch.setattr(decoders, "usable_cores", lambda: 2)
    found = decoders._Pool()
    monkeypatch.setattr(decoders, "_pool", lambda process: found)
    yield found
    found.close()


def pids(pool):
    return [decoder.pid for decoder in pool.idle.queue if decoder]


def write(path, seed=0, size=(9, 12), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path, **save)
    return path


@pytest.fixture
def files(tmp_path):
    """Paths and contents, among them two that are no images."""
    found = [str(write(tmp_path / f"{i}.{kind}", i)) for i, kind in enumerate(["png", "jpeg", "webp", "bmp"] * 10)]
    found.insert(7, str(tmp_path / os.fsdecode(b"\xffnone.png")))
    return found + [write(tmp_path / "x.png", i).read_bytes() for i in range(20)] + [b"not an image"]


def told(found):
    return [str(each) if isinstance(each, DataError) else each.tolist() for each in found]


def test_decoders_give_what_threads_give(files, pool, monkeypatch):
    found = told(decoders.decoded(files, SHAPE))
    assert 1 <= len(pids(pool)) <= 2
    monkeypatch.setattr(decoders, "FEW", 10**6)
    monkeypatch.setattr(pool, "ask", None)
    assert found == told(decoders.decoded(files, SHAPE))
    assert [i for i, each in enumerate(found) if isinstance(each, str)] == [7, 61]
    assert found[7] == f"{files[7]}: cannot be read as an image (no file, or a link to none)"
    assert found[61] == "cannot be read as an image (of no known format)"


def test_a_folder_that_the_process_has_gone_to(files, pool, tmp_path, monkeypatch):
    paths = [path for path in files[:40] if isinstance(path, str)]
    whole = told(decoders.decoded(paths, SHAPE))
    for folder in (tmp_path / "other", tmp_path):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        relative = told(decoders.decoded([os.path.relpath(path) for path in paths], SHAPE))
        assert relative[:7] + relative[8:] == whole[:7] + whole[8:]
        assert relative[7] == f"{os.path.relpath(paths[7])}: cannot be read as an image (no file, or a link to none)"


def test_large_images_are_more_than_a_pipe_holds(tmp_path, pool):
    paths = [str(write(tmp_path / f"{i}.png", i, (500, 400))) for i in range(5)]
    for found, path in zip(decoders.decoded(paths, (500, 400, 3)), paths, strict=True):
        np.testing.assert_array_equal(found, np.asarray(Image.open(path)))


def test_what_a_folder_leaves_out_is_the_same(tmp_path, pool, monkeypatch, caplog):
    """Rows, and the lines on them."""
    for i, name in enumerate([f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(3)]):
        write(tmp_path / name, i)
    for i in range(40):
        path = write(tmp_path / f"unlabelled/{i:02}.png", i)
        if i in (3, 4, 5, 17, 39):
            path.write_bytes(path.read_bytes()[:-40] + path.read_bytes()[-39:] if i % 2 else b"")
    rows, lines = [], []
    for few in (0, 10**6):
        monkeypatch.setattr(decoders, "FEW", few)
        warn_once.cache_clear()
        caplog.clear()
        images = folders.folder(str(tmp_path), image_size=6, channels=3).train.inputs
        rows.append(images[:])
        lines.append(caplog.messages[:])
    np.testing.assert_array_equal(*rows)
    assert lines[0] == lines[1] and len(lines[0]) >= 1
    for c in "ab":
        path = tmp_path / f"train/{c}/1.png"
        path.write_bytes(path.read_bytes()[:-30])
    monkeypatch.setattr(decoders, "FEW", 0)
    with pytest.raises(DataError, match="train/a/1.png: cannot be read as an image"):
        images[:]


def test_few_images_start_no_process(files, pool, monkeypatch):
    monkeypatch.setattr(decoders, "FEW", 150)
    list(decoders.decoded(files, SHAPE))
    list(decoders.decoded(files, SHAPE))
    assert pids(pool) == []
    list(decoders.decoded(files, SHAPE))
    assert pids(pool)


def test_a_decoder_that_died_is_one_line_and_another_is_started(files, pool):
    list(decoders.decoded(files, SHAPE))
    for pid in pids(pool):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError) as error:
        list(decoders.decoded(files, SHAPE))
    assert str(error.value) == "a process that decodes images was killed by signal 9; is memory short?"
    for _ in range(2):  # the other one, if there was one
        try:
            list(decoders.decoded(files, SHAPE))
        except ChildProcessError:
            continue
        break
    assert told(decoders.decoded(files[:5], SHAPE)) == told(map(lambda file: decoders._decoded(file, SHAPE), files[:5]))


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def script(tmp_path, count):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = write(tmp_path / "x.png", 0, (300, 300))
    words = [sys.executable, "script.py", str(path), str(count)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, process_group=0)


def test_a_script_is_not_run_again_and_nothing_is_left(tmp_path):
    out, err = script(tmp_path, 200).communicate(timeout=60)
    assert (out, err) == ("begins\ngoes on\nends\n", "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_decoders_end_with_their_parent_however_it_ends(tmp_path, number):
    """In the middle of their work, and without a word of theirs."""
    process = script(tmp_path, 100_000)
    assert [process.stdout.readline() for _ in range(2)] == ["begins\n", "goes on\n"]
    left = children(process.pid)
    assert 1 <= len(left) <= 2
    os.killpg(process.pid, number)  # as the terminal does
    err = process.communicate(timeout=60)[1]
    assert err.count("Traceback") == (number == signal.SIGINT) and "BrokenPipe" not in err
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def test_a_decoder_knows_nothing_of_jax():
    code = "import sys; import labelfx.data.decoders; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "flax", "absl", "labelfx.config", "labelfx.data.sources", "scipy", "sklearn"} & set(found)


@pytest.mark.parametrize("quota, cores", [("max 100000", 3), ("200000 100000", 2), ("50000 100000", 1), ("", 3)])
def test_cores_that_may_be_used(quota, cores, tmp_path, monkeypatch):
    file = tmp_path / "cpu.max"
    if quota:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(decoders, "QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 3}, raising=False)
    assert decoders.usable_cores() == cores


def test_one_of_several_processes_starts_none(monkeypatch):
    assert decoders._Pool().processes == decoders.usable_cores()
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "Grain's")
    assert decoders._Pool().processes == 0
