"""Several processes as one run: the same gradients, one set of logs, and none is left behind when one dies."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from compiler import FLAGS
from recipes import BATTERY, tiny
from test_parity import pretrain, relative_error
from test_robustness import PROGRESS, logged

from labelfx.config import ConfigError
from labelfx.finished import weights
from labelfx.loop import distributed

TESTS = Path(__file__).parent
LAYOUTS = {"1 x 1": (1, 1), "1 x 8": (1, 8), "2 x 4": (2, 4), "4 x 2": (4, 2)}  # processes x devices of each


def start(arguments, processes, devices, cache):
    """The processes of one run, on CPU devices of their own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices} {FLAGS}"
    shared = {"XLA_FLAGS": flags, "NPROC": "16", "JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": str(TESTS)}
    shared["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    started = []
    for index in range(processes):
        own = dict(zip(distributed.VARIABLES, (address, str(processes), str(index)), strict=True))
        environment = os.environ | shared | (own if processes > 1 else {})
        command = [sys.executable, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, cwd=TESTS.parent, **pipes))
    return started


def ended(processes, seconds):
    """(exit code, error lines without progress) of each; all are killed when the time is over."""
    found, until = [], time.monotonic() + seconds
    for process in processes:
        try:
            errors = process.communicate(timeout=max(until - time.monotonic(), 1))[1]
        except subprocess.TimeoutExpired:
            for each in processes:
                each.kill()
            raise
        lines = [line for line in errors.splitlines() if not PROGRESS.search(line)]
        found.append((process.returncode, lines))
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_every_layout_gives_the_same_gradient(tmp_path, cache):
    pretrain(tmp_path / "pretrained")
    found = {}
    for layout, (processes, devices) in LAYOUTS.items():
        folder = tmp_path / layout.replace(" ", "")
        folder.mkdir()
        for code, lines in ended(start(["tests/processes.py", folder, *BATTERY], processes, devices, cache), 600):
            assert (code, lines) == (0, []), (layout, lines)
        for method in BATTERY:
            with np.load(folder / f"{method}.npz") as arrays:
                count = len(arrays.files) // 2
                found[layout, method] = [[arrays[f"{name}{i}"] for i in range(count)] for name in "ba"]
    for layout, method in found:
        before, after = found[layout, method]
        error = relative_error(before, after, found["1 x 1", method][1])
        print(f"{method}, processes x devices = {layout}: relative error {error:.1e}")
        assert error < 1e-9


def config_file(folder, **changes):
    path = folder / "config.py"
    config = tiny("simclr", devices=0, log_every=1, **changes)
    path.write_text(f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({config!r})\n")
    return [f"--config={path}"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, cache):
    """The command's arguments, and the weights of a run of one process."""
    folder = tmp_path_factory.mktemp("reference")
    command = ["-m", "labelfx.train", *config_file(folder, steps=60, save_every=5)]
    assert ended(start([*command, f"--workdir={folder / 'run'}"], 1, 8, cache), 300) == [(0, [])]
    return command, weights.load(folder / "run/weights/0.safetensors")


def assert_close(workdir, expected):
    found = weights.load(workdir / "weights/0.safetensors")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4), found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("victim, then", [(1, (2, 4)), (0, (1, 8))])
def test_a_process_is_killed(victim, then, reference, tmp_path, cache):
    """The others stop within a minute, with one line; the run resumes on another number of processes."""
    command, expected = reference
    workdir = tmp_path / "run"
    command = [*command, f"--workdir={workdir}"]
    processes = start(command, 4, 2, cache)
    while logged(workdir) < 12:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[victim].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    lines = [found for index, found in enumerate(ended(processes, 120)) if index != victim]
    seconds = time.monotonic() - begin
    print(f"process {victim} of 4 killed: the others ended after {seconds:.0f} s, each with {lines[0][1]}")
    assert seconds < 60
    message = f"error: another process of this run died; the same command resumes from {workdir}/checkpoints"
    assert all(code != 0 and said == [message] for code, said in lines), lines
    assert not (workdir / "results.json").exists()
    assert ended(start(command, *then, cache), 300) == [(0, [])] * then[0]
    assert_close(workdir, expected)
    steps = [line for line in (workdir / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert len(steps) == 60


@pytest.mark.slow
def test_a_phase_starts_from_weights_that_are_written(tmp_path, cache):
    """By one process, slowly: the network is large. The others wait for it."""
    tuned = tiny("finetune")
    phase = {key: tuned[key] for key in ("method", "batch", "optimizer")} | {"backbone": "previous"}
    large = {"name": "mlp", "hidden": (3000, 3000), "dtype": "float32"}
    command = ["-m", "labelfx.train", *config_file(tmp_path, steps=4, phases=({}, phase), model=large)]
    assert ended(start([*command, f"--workdir={tmp_path / 'run'}"], 2, 1, cache), 300) == [(0, [])] * 2


@pytest.mark.slow
@pytest.mark.parametrize("processes, devices", [(2, 1), (4, 2)])
def test_evals_may_take_long(processes, devices, tmp_path, cache, monkeypatch):
    """Longer than a process waits for the others where it stops, and than a collective on CPUs may take: they meet."""
    (tmp_path / "own/evals").mkdir(parents=True)
    (tmp_path / "own/evals/slow.py").write_text(
        "import time\nfrom labelfx.config.annotations import Positive\n"
        "def slow(seed, *, seconds: Positive):\n    time.sleep(seconds)\n    return {'value': 1.0}\n"
    )
    monkeypatch.setenv("LABELFX_PATH", str(tmp_path / "own"))
    command = ["-m", "labelfx.train", *config_file(tmp_path, steps=4, eval_every=2, evals={"slow": {"seconds": 45.0}})]
    assert (
        ended(start([*command, f"--workdir={tmp_path / 'run'}"], processes, devices, cache), 300)
        == [(0, [])] * processes
    )
    assert json.loads((tmp_path / "run/results.json").read_text())["metrics"]["slow"]["value"] == 1
    assert sum('"slow/value"' in line for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1


SLOW_DISK = """\
import os
import time

import numpy as np

from labelfx.data import Some
from labelfx.data.sources import images

LATE = os.environ.get("JAX_PROCESS_ID") == "3"


class Read(Some):
    waits = 45.0  # the first time, as for a disk that starts up

    def __getitem__(self, rows):
        self.waits = time.sleep(self.waits * LATE) or 0.2
        return super().__getitem__(rows)


def slow_disk():
    time.sleep(45.0 * LATE)
    data = images.digits()
    read = Read(data.train.inputs, np.arange(len(data.train.inputs)))
    return data._replace(train=data.train._replace(inputs=read))
"""


@pytest.mark.slow
def test_one_of_four_has_a_slow_disk(reference, tmp_path, cache, monkeypatch):
    """The others wait, longer than a collective on CPUs may take, for its data set, its first batch and each further
    one, and so they do where the run resumes."""
    (tmp_path / "own/data/sources").mkdir(parents=True)
    (tmp_path / "own/data/sources/slow_disk.py").write_text(SLOW_DISK)
    monkeypatch.setenv("LABELFX_PATH", str(tmp_path / "own"))
    workdir = tmp_path / "run"
    command = ["-m", "labelfx.train", *config_file(tmp_path, steps=60, save_every=5, data={"name": "slow_disk"})]
    command += [f"--workdir={workdir}"]
    processes = start(command, 4, 2, cache)
    while logged(workdir) < 12:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[0].terminate()
    found = ended(processes, 120)
    assert [code for code, _ in found] == [143] * 4 and all("is saved" in lines[0] for _, lines in found), found
    assert ended(start(command, 4, 2, cache), 300) == [(0, [])] * 4
    assert_close(workdir, reference[1])
    assert (workdir / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["meta", "state"])
def test_a_damaged_checkpoint_is_set_aside_once(part, tmp_path, cache):
    command = ["-m", "labelfx.train", *config_file(tmp_path, steps=8, save_every=4), f"--workdir={tmp_path / 'run'}"]
    assert ended(start(command, 2, 1, cache), 300) == [(0, [])] * 2
    files = [path for path in (tmp_path / "run/checkpoints/8" / part).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
    found = ended(start(command, 2, 1, cache), 300)
    assert [code for code, _ in found] == [0, 0], found
    assert all(len(lines) == 1 and "8 is damaged" in lines[0] for _, lines in found), found
    assert (tmp_path / "run/damaged-8" / part).is_dir() and (tmp_path / "run/checkpoints/8").is_dir()


@pytest.mark.slow
def test_every_process_needs_a_device(tmp_path, cache):
    command = [
        "-m",
        "labelfx.train",
        *config_file(tmp_path, steps=2),
        "--config.devices=1",
        f"--workdir={tmp_path / 'x'}",
    ]
    line = "error: config.devices = 1: leaves one of 2 processes without any; use 0"
    assert ended(start(command, 2, 1, cache), 60) == [(2, [line])] * 2


@pytest.mark.slow
def test_sigterm_to_one_stops_all_at_one_step(reference, tmp_path, cache):
    command, expected = reference
    workdir = tmp_path / "run"
    command = [*command, f"--workdir={workdir}"]
    processes = start(command, 2, 4, cache)
    while logged(workdir) < 12:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].terminate()
    (code, first), (other, second) = ended(processes, 60)
    print(first)
    assert code == other == 143 and first == second
    assert re.fullmatch(r"SIGTERM: step \d+ is saved; the same command resumes", first[0]) and len(first) == 1
    assert ended(start(command, 2, 4, cache), 300) == [(0, [])] * 2
    assert_close(workdir, expected)


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"JAX_COORDINATOR_ADDRESS": "here:1"}, "JAX_NUM_PROCESSES: not set, but JAX_COORDINATOR_ADDRESS"),
        ({"A": "here:1", "N": "two", "I": "0"}, "JAX_NUM_PROCESSES = 'two': must be an integer"),
        ({"A": "here:1", "N": "2", "I": "2"}, "JAX_PROCESS_ID = 2: must be less than JAX_NUM_PROCESSES = 2"),
    ],
)
def test_one_line(environment, message):
    names = dict(zip("ANI", distributed.VARIABLES, strict=True))
    with pytest.raises(ConfigError, match=message):
        distributed.explicit({names.get(name, name): value for name, value in environment.items()})


@pytest.mark.parametrize(
    "gpus, node, local, tasks, expected",
    [
        (8, 0, 0, "1(x2)", [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 1, 3, "8(x2),4", [3]),
        (8, 2, 3, "8(x2),4", [6, 7]),
        (4, 0, 1, "2", [2, 3]),
    ],
)
def test_the_tasks_of_a_slurm_machine_share_its_gpus(gpus, node, local, tasks, expected):
    names = ("SLURM_GPUS_ON_NODE", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    environment = dict(zip(names, map(str, (gpus, node, local, tasks)), strict=True))
    assert distributed.own_gpus(environment) == expected
    assert distributed.own_gpus(environment | {"JAX_LOCAL_DEVICE_IDS": "0"}) is None
    assert distributed.own_gpus({name: value for name, value in environment.items() if "GPUS" not in name}) is None
    with pytest.raises(ConfigError, match=f"--ntasks-per-node=3: must divide the {gpus} GPUs"):
        distributed.own_gpus(environment | {"SLURM_STEP_TASKS_PER_NODE": "3(x4)"})


RUNTIME = """\
supervised  step 5/60  100 images/s
W1120 14:16:22.560337   14480 preemption_notifier.cc:90] SIGTERM caught at 2026-11-20T14:16:22
a warning of somebody else
E1120 14:16:23.000000   14480 coordination_service_agent.cc:289] Polled an error from coordination service
of several lines
"""
FATAL = (
    "F1120 1 client.h:80] Terminating process because the JAX distributed service detected fatal errors. 1\n  stack\n"
)


@pytest.mark.parametrize("end", [FATAL, "error: gone\n" + FATAL, FATAL + "error: gone\n"])
def test_one_line_of_all_that_the_runtime_says(end):
    command = [sys.executable, "-S", "-c", distributed.FILTER, "gone"]
    said = subprocess.run(command, input=RUNTIME + end, text=True, capture_output=True).stderr
    assert said.splitlines() == ["supervised  step 5/60  100 images/s", "a warning of somebody else", "error: gone"]


def test_what_python_says_is_kept():
    command = [sys.executable, "-S", "-c", distributed.FILTER, "gone"]
    text = RUNTIME + "Traceback (most recent call last):\n  File\nValueError: x\n"
    said = subprocess.run(command, input=text, text=True, capture_output=True).stderr
    assert said.splitlines()[2:] == ["Traceback (most recent call last):", "  File", "ValueError: x"]


def test_a_machine_of_its_own():
    assert distributed.explicit(os.environ) == {}
    given = dict(zip(distributed.VARIABLES, ("here:1", "4", "3"), strict=True))
    assert distributed.explicit(given) == {"coordinator_address": "here:1", "num_processes": 4, "process_id": 3}
