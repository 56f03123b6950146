"""The heavy variant of `test_robustness.py`: many kills, real full disks, bits flipped anywhere."""

import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from test_robustness import Command, assert_same_run, largest, logged, said, small, stop_when, uncommitted

import labelfx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WIDE = {"name": "mlp", "hidden": (1024, 1024), "dtype": "float32"}  # 13 MB of state: a save takes 0.1 s or more
LONG = {"model": WIDE, "steps": 400, "save_every": 20, "log_every": 5, "batch": {"labelled": 16, "unlabelled": 0}}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command, and the workdir of an uninterrupted run of it."""
    folder = tmp_path_factory.mktemp("command")
    command = Command(folder, **LONG)
    process = command.train(folder / "reference")
    assert said(process) == [] and process.returncode == 0
    return command, folder / "reference"


def test_ten_kills_change_nothing(command, tmp_path):
    """At ten moments: five while a save is half written, three at a step, two while the process starts up."""
    command, reference = command
    draws, workdir, half_written = random.Random(0), tmp_path / "run", 0
    moments = ["save"] * 5 + ["step"] * 3 + ["start"] * 2
    draws.shuffle(moments)
    for number, moment in enumerate(moments):
        # Not before the process has cleared away what the kill before this one left.
        left, at, delay = set(uncommitted(workdir)), 30 * number + draws.randrange(30), draws.uniform(0.5, 4)
        process, begin = command.train(workdir), time.monotonic()
        holds = {
            "save": lambda left=left, at=at: max(set(uncommitted(workdir)) - left, default=0) >= at,
            "step": lambda at=at: logged(workdir) >= at,
            "start": lambda begin=begin, delay=delay: time.monotonic() - begin >= delay,
        }[moment]
        assert stop_when(process, holds, signal.SIGKILL), (number, moment)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        half_written += bool(set(uncommitted(workdir)) - left)
    process = command.train(workdir)
    assert said(process) == [] and process.returncode == 0
    print(f"{half_written} of {len(moments)} kills hit an uncommitted save")
    assert half_written >= 5
    assert not uncommitted(workdir)
    assert_same_run(workdir, reference, every=5)


@pytest.mark.parametrize("delay", [1.0, 2.0, 3.0, 4.0])
def test_sigterm_at_any_time(command, delay, tmp_path):
    """While Python starts it ends the process at once, as it does any other; while the step compiles it waits for the
    first step."""
    command, reference = command
    process = command.train(tmp_path / "run")
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    lines = said(process)
    assert (process.returncode, len(lines)) in ((143, 1), (-signal.SIGTERM, 0)), lines
    process = command.train(tmp_path / "run")
    assert said(process) == [] and process.returncode == 0
    assert_same_run(tmp_path / "run", reference, every=5)


@pytest.fixture
def tight(tmp_path):
    """A real file system of 30 MB: two checkpoints and a half."""
    folder = tmp_path / "tight"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_keeps_the_last_good_checkpoint(command, tight):
    command, reference = command
    process = command.train(tight / "run")
    lines = said(process)
    assert len(lines) == 1 and process.returncode == 1, lines
    assert lines[0].startswith("error: checkpoint 60 was not written: it needs 14 MB and its disk has "), lines
    assert lines[0].endswith(f" MB left; last good checkpoint: step 40 in {tight}/run/checkpoints"), lines
    subprocess.run(["mount", "-o", "remount,size=200m", str(tight)], check=True)
    process = command.train(tight / "run")
    assert said(process) == [] and process.returncode == 0
    assert_same_run(tight / "run", reference, every=5)


def test_a_read_only_disk_is_one_line(command, tight):
    command, _ = command
    subprocess.run(["mount", "-o", "remount,ro", str(tight)], check=True)
    process = command.train(tight / "run")
    assert said(process) == [f"error: [Errno 30] Read-only file system: '{tight}/run'"]
    assert process.returncode == 1


def test_nan_is_one_line(command, tmp_path):
    command, _ = command
    process = command.start(
        f"--config={command.config}", f"--workdir={tmp_path / 'run'}", "--config.optimizer.learning_rate=1e30"
    )
    (line,) = said(process)
    assert line.startswith("error: loss is NaN or infinite at step ") and process.returncode == 1


def test_thirty_flipped_bits(tmp_path):
    """Anywhere in the largest file: found, or harmless to the arrays."""
    config, draws = small(), np.random.default_rng(0)
    labelfx.train(config, tmp_path / "reference")
    for number in range(30):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "reference", workdir)
        shutil.rmtree(workdir / "weights")
        path = largest(workdir / "checkpoints/6")
        content = bytearray(path.read_bytes())
        content[draws.integers(len(content))] ^= 1 << draws.integers(8)
        path.write_bytes(content)
        labelfx.train(config, workdir)
        assert_same_run(workdir, tmp_path / "reference", every=2)
