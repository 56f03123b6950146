"""What a run survives, and what its user reads when it does not: kills, damage, NaN, full disks, mistakes."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image
from recipes import RECIPES, recipe, tiny

import labelfx
from labelfx import config as configs
from labelfx import list as listing
from labelfx.__main__ import COMMANDS
from labelfx.config import ConfigError
from labelfx.finished import weights
from labelfx.loop import checkpoint, dispatch, metrics, results, run
from labelfx.loop.checkpoint import CheckpointError, Checkpoints
from labelfx.loop.metrics import NonFinite
from labelfx.loop.phases import Phase
from labelfx.loop.training import Loop

# TensorStore reads a broken checkpoint in many futures; the errors of those nobody waits for surface as warnings.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PROGRESS = re.compile(r"images/s|  step \d+/\d+$|^evaluating |^resumes after step | \.\.\.$")
SGD = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "clip_norm": None, "accumulate": 1}
SGD["schedule"] = {"name": "constant", "warmup_steps": 0}


def small(**changes) -> dict:
    """Six steps, a checkpoint every second."""
    model = {"name": "mlp", "hidden": (64,), "dtype": "float32"}
    return tiny("supervised", **{"model": model, "evals": {"head": {}}, **changes})


# The real command, in processes of its own.


class Command:
    """Runs commands of a config in processes that share compiled steps."""

    def __init__(self, folder: Path, **changes):
        self.config, self.folder = folder / "config_file.py", folder
        recipe = small(**changes)
        self.config.write_text(
            f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({recipe!r})\n"
        )

    def start(self, *arguments: str, module: str = "train") -> subprocess.Popen:
        settings = {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", f"labelfx.{module}", *arguments],
            cwd=self.folder, env=os.environ | settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def train(self, workdir: Path) -> subprocess.Popen:
        return self.start(f"--config={self.config}", f"--workdir={workdir}")


def said(process: subprocess.Popen) -> list[str]:
    """The lines on standard error when it has ended, without those of progress."""
    return [line for line in process.communicate(timeout=120)[1].splitlines() if not PROGRESS.search(line)]


def uncommitted(workdir: Path) -> list[int]:
    return [int(path.name.split(".")[0]) for path in workdir.glob("checkpoints/*.orbax-checkpoint-tmp")]


def logged(workdir: Path) -> int:
    """The last step in the metrics."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def stop_when(process: subprocess.Popen, holds, number: signal.Signals) -> bool:
    """Sends the signal at a moment when `holds()`. The process is held still for the look, so it cannot slip away."""
    while process.poll() is None:
        if holds():
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if process.poll() is None and holds():
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
                return True
            process.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    return False


def assert_same_run(workdir: Path, reference: Path, every: int) -> None:
    """The same parameters to the bit, the same metrics, each step once, the same results."""
    ours, theirs = ((folder / "weights/0.safetensors").read_bytes() for folder in (workdir, reference))
    assert ours == theirs
    lines, expected = (written(folder) for folder in (workdir, reference))
    assert [line["step"] for line in lines] == list(range(every, lines[-1]["step"] + 1, every))
    assert lines == expected
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (workdir, reference))
    assert ours["metrics"] == theirs["metrics"] and ours["training"]["steps"] == theirs["training"]["steps"]


def written(folder: Path) -> list[dict]:
    """The lines of metrics without the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def test_two_kills_and_a_sigterm_change_nothing(tmp_path):
    """One kill finds a save half written. SIGTERM saves first, says so in one line, and exits with 143."""
    draws = random.Random(0)
    command = Command(
        tmp_path, model={"name": "mlp", "hidden": (512, 512), "dtype": "float32"}, steps=120, save_every=20,
        log_every=5, batch={"labelled": 16, "unlabelled": 0},
    )  # fmt: skip
    reference, workdir = tmp_path / "reference", tmp_path / "run"
    uninterrupted = command.train(reference)

    process = command.train(workdir)
    assert stop_when(process, lambda: max(uncommitted(workdir), default=0) >= 40, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert uncommitted(workdir)

    process, at = command.train(workdir), draws.randrange(60, 80)
    assert stop_when(process, lambda: logged(workdir) >= at, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    process = command.train(workdir)
    assert stop_when(process, lambda: logged(workdir) >= 85, signal.SIGTERM)
    lines = said(process)
    assert len(lines) == 1 and process.returncode == 143, lines
    line = lines[0]
    step = int(line.split()[2])
    assert line == f"SIGTERM: step {step} is saved; the same command resumes"
    assert (workdir / "checkpoints" / str(step)).is_dir()

    process = command.train(workdir)
    assert said(process) == [] and process.returncode == 0
    assert said(uninterrupted) == [] and uninterrupted.returncode == 0
    assert_same_run(workdir, reference, every=5)


# Runs `python -m` of each list of words in a child that need not import everything again; prints a line for each: its
# code, standard output and standard error.
FORKS = """
import json, os, runpy, sys, tempfile, labelfx.evaluate, labelfx.list, labelfx.train
labelfx.list.table()  # imports the rest
for module, *words in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        if not (child := os.fork()):
            os.dup2(said.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.modules.pop(f"labelfx.{module}", None)
            sys.argv = [module, *words]
            runpy.run_module(f"labelfx.{module}", run_name="__main__", alter_sys=True)
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = [file.seek(0) or file.read().decode() for file in (said, errors)]
        print(json.dumps([code, *found]))
"""


def forked(cases, folder: Path) -> list[tuple[int, str, str]]:
    arguments = [sys.executable, "-c", FORKS, json.dumps(list(cases))]
    lines = subprocess.run(arguments, cwd=folder, text=True, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_a_reader_that_has_seen_enough_is_no_error():
    """As `head` is, which ends before it has read all."""
    ours, theirs = os.pipe()
    os.close(ours)
    ended = subprocess.run([sys.executable, "-m", "labelfx.list"], stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, "")


def test_help_of_every_command_shows_its_own_flags(tmp_path):
    """A line each, and those of no library."""
    own = {
        "train": "config config.KEY.KEY workdir",
        "fit": "data out backbone labels override recipe seed",
        "compare": "out augment backbone data draw first_seed labels methods override seeds weak",
        "benchmark": "workdir augment backbone data draw first_seed labels methods override seeds weak",
        "evaluate": "workdir",
        "features": "images out workdir",
        "predict": "images out workdir",
        "export": "out workdir",
        "scores": "workdir",
        "plan": "config config.KEY.KEY topology fsdp image_shape num_classes num_examples",
        "mine": "queries index positives out similarity candidates count rule seed a b clusters first last margin "
        "percentage tau",
        "suggest": "data backbone count out strategy labels seed",
        "report": "out baseline help",
        "table": "baseline help",
        "vote": "out help",
        "condense": "runs out seed set help",
        "reinforce": "runs out top views augment seed maps help",
        "list": "help",
        "derive": "runs out set help",
    }
    assert own.keys() == COMMANDS.keys()
    listed, *found = forked([("__main__",), *((name, "--help") for name in own)], tmp_path)
    assert listed[0] == 0 and all(f"  python -m labelfx.{name} " in listed[1] for name in own)
    for (name, flags), (code, text, errors) in zip(own.items(), found, strict=True):
        assert code == 0 and not errors, name
        assert set(re.findall(r"(?m)^  (?:-h, )?--([\w.]+)", text)) == set(flags.split()), text


def test_mistakes_on_the_command_line_are_one_line(tmp_path):
    """Also: recipes are found by their bare names from any folder."""
    known = f"--workdir={tmp_path / 'x'}"
    cases = {
        ("train", "--config=nosuch", known): "error: nosuch: neither a file nor a recipe; python -m labelfx.list rec",
        ("train", "--config=simclrr", known): "error: simclrr: neither a file nor a recipe; did you mean 'simclr'",
        ("train", "--config=consistency", known): (
            "error: consistency: a method, not a recipe; recipes that use it: fixmatch, papers/fixmatch_cifar10, "
        ),
        ("train", "--config=hard_negative", "--config.method.objective.tau_pluss=0.1", known): (
            "error: config.method.objective.tau_pluss: unknown key of hard_negative; did you mean 'tau_plus'? allowed: "
        ),
        ("train", "--config=simclr", "--config.lr=0.1", known): (
            "error: config.lr: unknown key; did you mean config.optimizer.learning_rate? allowed: "
        ),
        ("train", "--config=simclr", "--config.optimizer.lr=0.1", known): (
            "error: config.optimizer.lr: unknown key of adamw; did you mean 'learning_rate'? allowed: "
        ),
        (
            "train",
            "--config=simclr",
            "--config.model.remat",
            known,
        ): "error: --config.model.remat: has no value; write ",
        ("train", "--config=supervised", "--config.seed=abc", known): "error: config.seed = 'abc': must be an integer",
        ("train", "--config=supervised"): "error: --workdir: missing; ",
        ("train", known): "error: --config: missing; ",
        ("train", "--config", "supervised", "--config.steps=-5", known): "error: config.steps = -5: must be an integer",
        (
            "train",
            "--config=simclr",
            "--config.data.name=folder:own",
            known,
        ): "error: config.data.image_size: missing; ",
        ("train", "--config=simclr", "--config.data.name=folder:own", "--config.data.image_size=big", known): (
            "error: config.data.image_size = 'big': must be an integer"
        ),
        ("train", "--config=own_images", "--config.data.name=digits", "--config.data.channels=1", known): (
            "error: config.data.channels: unknown key of digits; allowed: merge, placement"
        ),
        ("train", "--config=supervised", "--config.keep=0", known): "error: config.keep = 0: must be an integer from 1",
        ("train", "--config=supervised", "--wrokdir=x"): "error: Unknown command line flag 'wrokdir'. Did you mean: wo",
        ("train", "--config=supervised", known, "twice"): "error: 'twice': not a flag",
        ("train", "--config=supervised", "--workdir=/proc/x"): "error: [Errno 2] No such file or directory: '/proc/x'",
        ("evaluate", known): f"error: {tmp_path / 'x'}: no config.json there",
    }
    for (code, _, errors), (case, expected) in zip(forked(cases, tmp_path), cases.items(), strict=True):
        assert errors.startswith(expected) and errors.count("\n") == 1, (case, errors)
        assert code == 2
    assert not (tmp_path / "x").exists()


def test_list_is_a_line_each():
    table = listing.table()
    lines = list(listing.short(table))
    assert max(map(len, lines)) <= 120 and list(table)[0] == "recipes" and "simclr" in table["recipes"]
    assert any(re.match(r"  hard_negative .*\(Robinson et al\. 2021, .* \.\.\.\)$", line) for line in lines)
    assert len(lines) == sum(1 + len(section) for section in table.values())
    for name in RECIPES:
        assert any(line.split()[0] == tiny(name)["method"]["name"] for line in lines)
    assert all(line.strip() for section in table.values() for line in section.values())
    assert all(re.match(r"  [\w/]+  +\S", line) for line in lines if line not in table)  # no name runs into its line


def test_list_of_one_entry():
    """Its keys in the words of errors, its defaults, its paper, what a run provides it; all entries of a name."""
    found = "\n".join(listing.describe("hard_negative"))
    for part in (
        "hard_negative, one of recipes (",
        "config.method.objective.beta = 1.0\n",
        "hard_negative, one of objectives (",
        "(Robinson et al. 2021, ICLR, eq. 4 and 5",
        "  arguments: z_a, z_b\n  keys:\n    temperature  a number > 0\n",
        "    block_size   an integer from 1 to 2^31 - 1 or None; None by default",
    ):
        assert part in found
    found = "\n".join(listing.describe("moco"))
    assert "  arguments: model, tx, which a run provides\n" in found
    assert "  recipes: moco, papers/moco_cifar10_resnet18, papers/moco_v2_imagenet\n" in found
    assert re.search(r"    augment +a dict with a name, one of crop_flip, identity, ", found)
    assert "placement   one of 'host', 'device'; 'host' by default" in "\n".join(listing.describe("folder"))
    for wrong, meant in (("mocco", "'moco'"), ("recipe", "'recipes'"), ("objective", "'objectives'")):
        with pytest.raises(ConfigError, match=f"^'{wrong}': no such entry; did you mean {meant}?"):
            list(listing.describe(wrong))


# One process.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(configuration, workdir) of an uninterrupted run: six steps, checkpoints 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("finished")
    config = small()
    labelfx.train(config, folder)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["2", "4", "6"]
    return config, folder


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of the finished run that lacks only what its end writes."""
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder)
    shutil.rmtree(folder / "weights")
    (folder / "results.json").unlink()
    return folder


def largest(folder: Path) -> Path:
    return max(folder.glob("state/**/d/*"), key=lambda path: path.stat().st_size)


def truncate(folder):
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def flip(folder):
    content = bytearray(largest(folder).read_bytes())
    content[len(content) // 2] ^= 1
    largest(folder).write_bytes(content)


def other_meta(folder):
    shutil.copy(folder.parent / "4/meta/metadata", folder / "meta/metadata")


DAMAGE = {
    "data file cut short": truncate,
    "one bit flipped": flip,
    "metadata deleted": lambda folder: (folder / "state/_METADATA").unlink(),
    "meta empty": lambda folder: (folder / "meta/metadata").write_text(""),
    "meta without keys": lambda folder: (folder / "meta/metadata").write_text("{}"),
    "meta of another step": other_meta,
    "state deleted": lambda folder: shutil.rmtree(folder / "state"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside(kind, finished, workdir, caplog):
    config, reference = finished
    DAMAGE[kind](workdir / "checkpoints/6")
    labelfx.train(config, workdir)
    (record,) = [record for record in caplog.records if record.name.startswith("labelfx")]
    assert record.levelname == "WARNING"
    assert f"checkpoint {workdir}/checkpoints/6 is damaged (" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert (workdir / "damaged-6").is_dir()
    assert_same_run(workdir, reference, every=2)


def test_damage_twice_at_one_step(finished, workdir):
    config, reference = finished
    for _ in range(2):
        truncate(workdir / "checkpoints/6")
        labelfx.train(config, workdir)
    assert_same_run(workdir, reference, every=2)


def test_no_whole_checkpoint_left(finished, workdir):
    config, reference = finished
    for folder in (workdir / "checkpoints").iterdir():
        truncate(folder)
    with pytest.raises(CheckpointError, match=r"^no checkpoint in \S+ is whole; .* begins at step 0$"):
        labelfx.train(config, workdir)
    labelfx.train(config, workdir)
    assert_same_run(workdir, reference, every=2)


def test_an_error_of_the_configuration_is_not_damage(finished, workdir, monkeypatch):
    """A backbone or data set that is gone must not cost the checkpoints."""

    def gone(self, index):
        raise FileNotFoundError("no weights at X")

    monkeypatch.setattr(Loop, "build", gone)
    with pytest.raises(FileNotFoundError, match="^no weights at X$"):
        labelfx.train(finished[0], workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4", "6"]


def test_another_format_is_refused(finished, workdir, monkeypatch):
    found, reads = checkpoint.FORMAT, checkpoint.FORMAT + 1
    monkeypatch.setattr(checkpoint, "FORMAT", reads)
    with pytest.raises(CheckpointError) as caught:
        labelfx.train(finished[0], workdir)
    assert str(caught.value) == (
        f"{workdir}/checkpoints/6: checkpoint format {found}, this version reads {reads}; "
        "use the version of labelfx that wrote it"
    )
    assert not list(workdir.glob("damaged-*"))


def poison(monkeypatch, after: int) -> None:
    """From step `after` on, counted from 1, the update leaves NaN in the parameters."""
    real = Loop.build

    def build(self, index):
        phase = real(self, index)
        method = phase.method

        def step(state, batch, rng):
            count = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32)
            state, values = method.step(state, batch, rng)
            params = jax.tree.map(lambda x: jax.numpy.where(count + 1 >= after, np.float32(np.nan), x), state.params)
            return state._replace(params=params), values

        return Phase(**{**vars(phase), "method": method._replace(step=step)})

    monkeypatch.setattr(Loop, "build", build)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (5, r"loss is NaN or infinite at step 6; last good checkpoint: step 4 in \S+"),
        (6, r"the state after step 6 holds NaN or Inf; last good checkpoint: step 4 in \S+"),
    ],
    ids=["seen in a metric", "seen in the state at a save"],
)
def test_nan_stops_and_is_never_saved(after, message, finished, tmp_path, monkeypatch):
    config, reference = finished
    with monkeypatch.context() as poisoned:
        poison(poisoned, after)
        with pytest.raises(NonFinite, match=f"^{message}$"):
            labelfx.train(config, tmp_path)
    assert not (tmp_path / "checkpoints/6").exists() and not (tmp_path / "weights").exists()
    labelfx.train(config, tmp_path)  # goes on from what was good
    assert_same_run(tmp_path, reference, every=2)


def test_nan_by_a_huge_learning_rate(tmp_path):
    config = small()
    config["optimizer"] = config["optimizer"] | {"learning_rate": 1e30}
    with pytest.raises(NonFinite, match=r"^loss is NaN or infinite at step \d; (no|last good) checkpoint"):
        labelfx.train(config, tmp_path)
    for folder in (tmp_path / "checkpoints").iterdir():
        state = ocp.StandardCheckpointer().restore(folder / "state")
        assert metrics.finite(state)


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_save_that_cannot_begin(finished, tmp_path, monkeypatch):
    config, reference = finished
    real = ocp.CheckpointManager.save

    def save(self, step, **how):
        if step == 4:
            raise FULL
        return real(self, step, **how)

    with monkeypatch.context() as failing:
        failing.setattr(ocp.CheckpointManager, "save", save)
        with pytest.raises(
            CheckpointError,
            match=r"^checkpoint 4 was not written: .* No space left on device; last good checkpoint: step 2 in",
        ):
            labelfx.train(config, tmp_path)
    labelfx.train(config, tmp_path)
    assert_same_run(tmp_path, reference, every=2)


@pytest.mark.parametrize("step", [4, 6])
def test_a_save_that_fails_in_the_background(step, finished, tmp_path, monkeypatch):
    """Noticed at the next save or, for the last one, at the end: before any result is written."""
    config, reference = finished
    real = ocp.CheckpointManager._finalize

    def finalize(self, number, *how):
        real(self, number, *how)
        if number == step:
            shutil.rmtree(self.directory / str(number))
            raise FULL

    with monkeypatch.context() as failing:
        failing.setattr(ocp.CheckpointManager, "_finalize", finalize)
        with pytest.raises(
            CheckpointError,
            match=rf"^checkpoint {step} was not written: .*No space left.*; last good checkpoint: step {step - 2} in",
        ):
            labelfx.train(config, tmp_path)
    assert not (tmp_path / "results.json").exists()
    labelfx.train(config, tmp_path)
    assert_same_run(tmp_path, reference, every=2)


def test_a_failing_save_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    def finalize(self, *_):
        raise FULL

    monkeypatch.setattr(ocp.CheckpointManager, "_finalize", finalize)
    poison(monkeypatch, after=3)
    with pytest.raises(NonFinite, match="^loss is NaN or infinite at step 4; "):
        labelfx.train(small(), tmp_path / "nan")
    real = Checkpoints.save

    def save(self, *what):
        real(self, *what)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(small(), tmp_path / "interrupted")


def test_saved_arrays_are_those_of_their_step(tmp_path):
    """Steps donate their buffers while a save of them is being written; every checkpoint must still be its own."""
    wide = {"name": "mlp", "hidden": (256, 256), "dtype": "float32"}
    labelfx.train(small(model=wide, steps=8, save_every=1, log_every=8, keep=8), tmp_path)
    for step in range(1, 9):
        folder = tmp_path / "checkpoints" / str(step)
        state = ocp.StandardCheckpointer().restore(folder / "state")
        assert {int(leaf) for leaf in jax.tree.leaves(state) if leaf.dtype == np.int32} == {step}
        # Sorted: what is restored without a target is a dict, with its leaves in another order.
        meta = json.loads((folder / "meta/metadata").read_text())
        assert sorted(checkpoint.fingerprint(state).tolist()) == sorted(meta["fingerprint"])
    last = jax.tree.leaves(state["params"])
    for leaf, exported in zip(last, parameters(tmp_path), strict=True):
        np.testing.assert_array_equal(leaf, exported)


def test_a_kill_between_save_and_eval_loses_no_line(tmp_path, monkeypatch):
    config = small(eval_every=2)
    labelfx.train(config, tmp_path / "reference")
    real = Checkpoints.save

    def save(self, step, *what):
        real(self, step, *what)
        if step in (2, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            labelfx.train(config, tmp_path / "run")
    labelfx.train(config, tmp_path / "run")
    assert written(tmp_path / "run") == written(tmp_path / "reference")
    assert sum("head/accuracy" in line for line in written(tmp_path / "run")) == 2


def test_the_median_of_the_last_20_accuracies(tmp_path):
    """Of the last phase, the end included; there is none of fewer."""
    found = labelfx.train(small(steps=42, eval_every=2, save_every=50), tmp_path)["metrics"]["head"]
    during = [line["head/accuracy"] for line in written(tmp_path) if "head/accuracy" in line]
    assert len(during) == 20 and len({*during}) > 2
    assert found["median_of_last_20"] == np.median([*during[1:], found["accuracy"]])
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]["head"] == found
    for first, there in ((2, True), (4, False)):  # 19 and 18 accuracies in the second phase, before its end
        config = configs.check(small(phases=({"steps": first}, {"steps": 42 - first})))
        parts = {"head": {"accuracy": 0.5}, "rankme": {"value": 3.0}}
        results.add_medians(config, tmp_path, parts)
        assert ("median_of_last_20" in parts["head"]) == there and parts["rankme"] == {"value": 3.0}


def test_a_kill_in_the_middle_of_the_export(finished, workdir):
    config, reference = finished
    (workdir / "weights").mkdir()
    (workdir / "weights/0.safetensors.tmp").write_bytes(b"half")
    labelfx.train(config, workdir)
    assert_same_run(workdir, reference, every=2)
    assert not (workdir / "weights/0.safetensors.tmp").exists()


def test_a_cut_line_of_metrics_is_dropped(finished, workdir):
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])
    for step in (6, 4):
        shutil.rmtree(workdir / f"checkpoints/{step}")
    labelfx.train(finished[0], workdir)
    assert_same_run(workdir, finished[1], every=2)


def test_labels_that_changed_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (40, 4, 4, 1), np.uint8), "train_labels": np.arange(40) % 4,
        "test_images": rng.integers(0, 256, (8, 4, 4, 1), np.uint8), "test_labels": np.arange(8) % 4,
    }  # fmt: skip
    data, folder = tmp_path / "own.npz", tmp_path / "run"
    np.savez(data, **arrays)
    config = configs.check(small(data={"name": f"npz:{data}"}))
    folder.mkdir()
    run.begin(config, folder, run.load_data(config, folder)[1])
    path, whole = folder / "labels.json", (folder / "labels.json").read_text()
    kept = json.loads(whole)
    changed = "its rows do not have the labels they had; the data set has changed since"
    for content, message in {
        json.dumps(kept | {"rows": [*kept["rows"][1:], 39]}): changed,
        json.dumps(kept | {"rows": [*kept["rows"][1:], 40]}): changed,
        json.dumps(kept | {"rows": [*kept["rows"][1:], -41]}): changed,
        whole[:20]: "not as it was written",
        "{}": "not as it was written",
    }.items():
        path.write_text(content)
        with pytest.raises(ConfigError) as error:
            run.load_data(config, folder)
        assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)
    path.write_text(whole)
    arrays["train_labels"] = (arrays["train_labels"] + 1) % 4
    np.savez(data, **arrays)
    with pytest.raises(ConfigError, match=changed):
        run.load_data(config, folder)


def test_a_step_that_does_not_fit_the_images_leaves_the_workdir_free(tmp_path):
    """What takes RGB, on grey images: the mistake is mended by one flag, in the same folder."""
    right = tiny("simclr", model={"name": "mlp", "hidden": (16,), "dtype": "float32"})
    wrong = right | {"method": right["method"] | {"augment": recipe("papers/simclr_cifar10")["method"]["augment"]}}
    with pytest.raises(ConfigError, match="^config.method: simclr takes RGB images"):
        labelfx.train(wrong, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "checkpoints"}
    labelfx.train(right, tmp_path)


def test_images_that_changed_are_refused(tmp_path):
    """One more, or another name: the row numbers that the run has kept would be those of other images."""
    images, folder = tmp_path / "images", tmp_path / "run"
    for name in ("train/a/1.png", "train/a/2.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "unlabelled/3.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(images / name)
    config = configs.check(
        small(data={"name": f"folder:{images}", "image_size": 8, "channels": 1}, labels={"name": "all_labels"})
    )
    folder.mkdir()
    run.begin(config, folder, run.load_data(config, folder)[1])
    run.load_data(config, folder)
    for before, after in (("train/a/1.png", "train/a/3.png"), ("unlabelled/3.png", "unlabelled/2.png")):
        (images / before).rename(images / after)
        with pytest.raises(
            ConfigError, match="labels.json: not of these 4 training images; some were added, removed or"
        ):
            run.load_data(config, folder)
        (images / after).rename(images / before)
    run.load_data(config, folder)
    shutil.copy(images / "unlabelled/3.png", images / "unlabelled/4.png")
    with pytest.raises(ConfigError, match="labels.json: not of these 5 training images"):
        run.load_data(config, folder)


@pytest.mark.parametrize(
    ("name", "changes", "part", "expected"),
    [
        ("own_images", {"data.name": "folder:x"}, "data", {"name": "folder:x", "image_size": 32, "channels": 3}),
        ("own_images", {"data.name": "npz:x"}, "data", {"name": "npz:x"}),
        ("simclr", {"data.data_dir": "7", "data.name": "mnist"}, "data", {"name": "mnist", "data_dir": "7"}),
        ("simclr", {"labels.name": "all_labels"}, "labels", {"name": "all_labels"}),
        ("simclr", {"labels": '{"name": "all_labels"}'}, "labels", {"name": "all_labels"}),
        ("simclr", {"labels.fraction": ".5", "labels.balanced": "true", "labels.name": "fraction"}, "labels",
         {"name": "fraction", "fraction": 0.5, "balanced": True}),
        ("simclr", {"optimizer.schedule.name": "fixmatch_cosine"}, "optimizer",
         {"schedule": {"name": "fixmatch_cosine"}}),
        ("simclr", {"optimizer.momentum": "0.9", "optimizer.name": "sgd"}, "optimizer",
         {"name": "sgd", "momentum": 0.9, "learning_rate": 2e-3, "schedule": {"name": "cosine", "warmup_steps": 20}}),
    ],
)  # fmt: skip
def test_a_part_that_is_replaced_by_its_name(name, changes, part, expected):
    """Its keys come from the recipe, from its defaults, or from the command line; those of the old one go."""
    found = labelfx.recipe(name, {path: configs.Written(value) for path, value in changes.items()})[part]
    assert found.items() >= expected.items()
    assert part == "optimizer" or found == expected
    assert "b1" not in found or found["name"] == "adamw"


def test_evaluate_finds_the_same_numbers(finished, workdir):
    config, reference = finished
    shutil.copytree(reference / "weights", workdir / "weights")
    shutil.copy(reference / "results.json", workdir)
    again = labelfx.evaluate(workdir)
    assert again["metrics"] == json.loads((reference / "results.json").read_text())["metrics"]


def test_what_cannot_change_a_result_may_change_on_a_resume(finished, workdir):
    """Devices, save interval, how many are kept."""
    config, reference = finished
    for step in (6, 4):
        shutil.rmtree(workdir / f"checkpoints/{step}")
    labelfx.train(config | {"devices": 2, "save_every": 3, "keep": 1, "log_every": 1}, workdir)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["6"]
    for one, other in zip(parameters(workdir), parameters(reference), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_eight_devices_see_the_same_batches_and_learn_the_same(tmp_path, monkeypatch):
    """SGD: an update is the gradient, so that a wrong mean over devices cannot hide as it would under Adam."""
    real, seen = dispatch.batches, {}

    def batches(start, stop, **how):
        for number, batch in enumerate(real(start, stop, **how), start):
            seen.setdefault(number, []).append(batch["labelled"]["index"])
            yield batch

    monkeypatch.setattr(dispatch, "batches", batches)
    for devices in (1, 8):
        labelfx.train(small(optimizer=SGD, devices=devices), tmp_path / str(devices))
    assert sorted(seen) == list(range(6))
    for one, eight in seen.values():
        np.testing.assert_array_equal(one, eight)
    pairs = zip(parameters(tmp_path / "1"), parameters(tmp_path / "8"), strict=True)
    for one, eight in pairs:
        np.testing.assert_allclose(one, eight, rtol=0, atol=2e-6 * np.abs(one).max())


def parameters(folder: Path) -> list[np.ndarray]:
    return jax.tree.leaves(weights.load(folder / "weights/0.safetensors"))
