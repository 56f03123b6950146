"""A run in a bucket: what a folder of this machine would hold, whole or not there, of one owner at a time."""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from buckets import server
from recipes import tiny
from test_processes import ended, start
from test_robustness import Command, assert_same_run, said, stop_when

import labelfx
from labelfx import config as configs
from labelfx import scores
from labelfx.config import ConfigError
from labelfx.loop import bucket, metrics
from labelfx.loop.checkpoint import Checkpoints

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
CONFIG = tiny("supervised", model={"name": "mlp", "hidden": (16,), "dtype": "float32"}, evals={"head": {}})
PAIRS = {"augment": {"name": "crop_flip", "padding": 1, "flip": False}}
HOLD = """
import sys, time
from labelfx import config
from labelfx.loop import bucket
bucket.BEAT = 0.2
with bucket.claim(config.place(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture(scope="module", autouse=True)
def storage():
    with server() as environment:
        yield environment


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The same run in a folder and in the bucket."""
    folder, address = tmp_path_factory.mktemp("finished") / "run", "gs://bucket/finished/run"
    labelfx.train(CONFIG, folder)
    labelfx.train(CONFIG, address)
    return folder, address


def test_it_is_the_run_of_a_folder(finished):
    folder, address = finished
    assert_same_run(configs.place(address), folder, every=2)
    found = {path.name for path in configs.place(address).iterdir()}
    assert found == {path.name for path in folder.iterdir()} - {".lock"}
    steps = [{int(p.name) for p in (w / "checkpoints").iterdir()} for w in (folder, configs.place(address))]
    assert steps[0] == steps[1]
    events = b"".join(path.read_bytes() for path in configs.place(address + "/tensorboard").iterdir())
    assert b"loss" in events


def test_all_that_reads_a_run_reads_it_there(finished, tmp_path):
    folder, address = finished
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    assert np.array_equal(labelfx.load(address)(images), labelfx.load(folder)(images))
    assert labelfx.table([address]) == labelfx.table([folder]) == labelfx.table(["gs://bucket/finished"])
    page = labelfx.report(["gs://bucket/finished"], tmp_path / "report.html").read_text()
    assert "Confusion matrix" in page and "No run" not in page
    assert len(labelfx.features(address, "test", tmp_path / "out.npz")[0]) > 100
    labelfx.export(address, tmp_path / "network")
    before = labelfx.evaluate(folder)["metrics"]
    assert labelfx.evaluate(address)["metrics"] == before
    found = labelfx.evaluate(address, out="gs://bucket/elsewhere", evals={"score_distribution": PAIRS})
    assert json.loads(configs.place("gs://bucket/elsewhere/results.json").read_text())["metrics"] == found["metrics"]
    assert scores.draw("gs://bucket/elsewhere").read_text().startswith("<svg")


def test_a_run_starts_from_one_there(finished):
    config = tiny("distillation", teacher=finished[1], model=CONFIG["model"])
    found = labelfx.train(config, "gs://bucket/student")
    assert found["config_hash"] == configs.config_hash(configs.check({**config, "teacher": str(finished[0])}))
    labelfx.train(tiny("meta_pseudo_labels"), "gs://bucket/phases")


def test_a_damaged_checkpoint_is_set_aside(finished, tmp_path):
    config = CONFIG | {"seed": 1}
    labelfx.train(config, tmp_path / "reference")
    labelfx.train(config, "gs://bucket/damaged")
    workdir = configs.place("gs://bucket/damaged")
    path = max((workdir / "checkpoints/6/state/ocdbt.process_0/d").iterdir(), key=lambda path: path.stat().length)
    path.write_bytes(bytes(path.stat().length))
    (workdir / "results.json").unlink()
    labelfx.train(config, workdir)
    assert (workdir / "damaged-6").is_dir()
    assert_same_run(workdir, tmp_path / "reference", every=2)


def test_metrics_are_there_when_their_checkpoint_is(monkeypatch):
    """Also where a kill follows at once: a resume starts after the step and writes none of them again."""
    seen, real = [], Checkpoints.save

    def save(self, step, *arguments):
        seen.append((step, metrics.read(self.folder.parent / "metrics.jsonl")[-1]["step"]))
        real(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save)
    labelfx.train(CONFIG, "gs://bucket/metrics")
    assert seen == [(2, 2), (4, 4), (6, 6)]


def test_metrics_are_sent_now_and_then_as_well(monkeypatch):
    sent = []
    monkeypatch.setattr(metrics, "SEND_EVERY", 0.0)
    monkeypatch.setattr(metrics.Writer, "send", lambda self: sent.append(len(self.path.read_text().splitlines())))
    labelfx.train(CONFIG | {"save_every": 6, "log_every": 1}, "gs://bucket/sent")
    assert sent[:5] == [1, 2, 3, 4, 5]


def test_a_file_is_whole_or_as_it_was():
    path = configs.place("gs://bucket/whole/file")
    configs.write_text(path, "before")
    with pytest.raises(KeyboardInterrupt), configs.replacing(path) as file:
        file.write(b"half of")
        raise KeyboardInterrupt
    assert path.read_text() == "before"


def test_what_others_have_written_is_seen():
    folder = configs.place("gs://bucket/lists")
    configs.write_text(folder / "a", "")
    assert {path.name for path in folder.iterdir()} == {"a"}
    assert bucket._Lock(folder).write(0)  # by another library, as another process
    assert {path.name for path in folder.iterdir()} == {"a", ".lock"}


def test_what_cannot_be_reached_is_one_line():
    with pytest.raises(ConfigError, match=r"^gs://other: no such bucket, or these credentials may not see it$"):
        labelfx.train(CONFIG, "gs://other/run")
    with pytest.raises(FileNotFoundError, match=r"^gs://bucket/none: no config.json there; give the workdir of a run$"):
        labelfx.load("gs://bucket/none")
    with pytest.raises(FileNotFoundError, match=r"^gs://bucket/none: no such folder$"):
        labelfx.report(["gs://bucket/none"])


# One owner at a time.


@pytest.fixture
def held():
    workdir = configs.place(f"gs://bucket/held/{time.time_ns()}")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(workdir)], stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "held\n"
    yield workdir, process
    process.kill()
    process.communicate()


def test_a_second_owner_is_refused(held, capsys):
    workdir, process = held
    who = f"process {process.pid} on {socket.gethostname()}"
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{workdir}: in use by {who}; wait for its end or use ano')}"):
        labelfx.train(CONFIG, workdir)
    assert f"{workdir}: held by {who}; waiting up to 120 s for a sign that it lives ..." in capsys.readouterr().err
    assert not (workdir / "config.json").exists()
    process.kill()
    process.wait()
    begin = time.monotonic()
    with bucket.claim(workdir):  # a process of this machine that is gone
        assert time.monotonic() - begin < 5
    assert not (workdir / ".lock").exists()


def test_an_owner_elsewhere_that_is_silent_is_taken_over(monkeypatch):
    monkeypatch.setattr(bucket, "SILENCE", 2.0)
    workdir = configs.place("gs://bucket/silent")
    lock = bucket._Lock(workdir)
    lock.me["host"] = "elsewhere"
    assert lock.write(0)
    begin = time.monotonic()
    with bucket.claim(workdir):
        assert 2 <= time.monotonic() - begin < 20
        assert not lock.write(lock.generation)  # and finds that out


def test_of_many_at_once_one_gets_it():
    locks = [bucket._Lock(configs.place("gs://bucket/many")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda lock: lock.write(0), locks)) == 1


def test_who_has_lost_it_stops(held):
    workdir, process = held
    thief = bucket._Lock(workdir)
    assert any(thief.write(thief.seen().generation) for _ in range(20))
    _, error = process.communicate(timeout=60)
    assert error.splitlines()[-1].startswith(f"error: {workdir}: was silent for too long, and is taken over by process")
    assert process.returncode == 1


# Kills.


def saves(workdir):
    """Step -> whether its checkpoint is whole."""
    found = configs.below(workdir / "checkpoints", "_CHECKPOINT_METADATA") if workdir.is_dir() else []
    return {int(path.parent.name): (path.parent / "commit_success.txt").exists() for path in found}


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path):
    """The run is that in a folder which nobody disturbed: five kills while a save is half written, three after one, two
    while the process starts up."""
    model = {"name": "mlp", "hidden": (512, 512), "dtype": "float32"}
    batch = {"labelled": 16, "unlabelled": 0}
    command = Command(tmp_path, model=model, steps=400, save_every=20, log_every=5, batch=batch)
    draws, half_written = random.Random(0), 0
    process = command.train(tmp_path / "reference")
    assert said(process) == [] and process.returncode == 0
    workdir = configs.place(f"gs://bucket/{tmp_path.name}")
    moments = ["save"] * 5 + ["step"] * 3 + ["start"] * 2
    draws.shuffle(moments)
    for number, moment in enumerate(moments):
        left, at, delay = set(saves(workdir)), 30 * number + draws.randrange(30), draws.uniform(0.5, 6)
        process, begin = command.train(workdir), time.monotonic()
        holds = {
            "save": lambda left=left, at=at: any(k >= at for k, v in saves(workdir).items() if not v and k not in left),
            "step": lambda at=at: max((k for k, v in saves(workdir).items() if v), default=0) >= at,
            "start": lambda begin=begin, delay=delay: time.monotonic() - begin >= delay,
        }[moment]
        assert stop_when(process, holds, signal.SIGKILL), (number, moment)
        process.communicate()
        half_written += any(not v for k, v in saves(workdir).items() if k not in left)
    process = command.train(workdir)
    lines = [line for line in said(process) if not re.search("google_auth_provider|Compute Engine auth", line)]
    assert lines == [] and process.returncode == 0
    print(f"{half_written} of {len(moments)} kills hit a save that was not whole")
    assert half_written >= 5
    assert all(saves(workdir).values())
    assert_same_run(workdir, tmp_path / "reference", every=5)


@pytest.mark.slow
def test_two_processes_write_one_run_there(tmp_path):
    """Both save what is theirs of each checkpoint, straight to the bucket, and a second start of both reads it."""
    command, cache = Command(tmp_path, devices=0), tmp_path / "cache"
    for workdir in (tmp_path / "reference", *(2 * ["gs://bucket/two"])):
        arguments = ["-m", "labelfx.train", f"--config={command.config}", f"--workdir={workdir}"]
        for code, lines in ended(start(arguments, 2, 1, cache), 240):
            assert code == 0, lines
    assert_same_run(configs.place("gs://bucket/two"), tmp_path / "reference", every=2)
