"""How a run stops and what it says: Ctrl-C, a phase that follows nothing, work that takes long."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.finished import weights
from labelfx.loop import metrics, record
from labelfx.loop.stopping import Interrupted, listening
from labelfx.loop.training import Loop

MLP = {"name": "mlp", "hidden": (16,), "dtype": "float32"}


@pytest.fixture
def in_front():
    """A process that Ctrl-C reaches, which in the background of a shell it does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_saves_says_so_and_the_run_resumes(in_front, tmp_path, monkeypatch, capsys):
    config = tiny("supervised", model=MLP, steps=20, log_every=4, save_every=20)
    labelfx.train(config, tmp_path / "reference")
    real = Loop.log

    def log(self, values):
        real(self, values)
        if self.done == 8:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Loop, "log", log)
        labelfx.train(config, tmp_path / "run")
    assert "Ctrl-C: step 8 is saved; the same command resumes\n" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["8"]
    labelfx.train(config, tmp_path / "run")
    assert "resumes after step 8 of 20\n" in capsys.readouterr().err
    trees = [weights.load(tmp_path / name / "weights/0.safetensors") for name in ("reference", "run")]
    jax.tree.map(np.testing.assert_array_equal, *trees)


def test_where_ctrl_c_is_ignored_it_stays_so(in_front):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with listening() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.now() == ""


def test_a_second_ctrl_c_does_not_wait(in_front):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), listening() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.now() == "Ctrl-C"
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def curriculum(*before, percentile):
    config = tiny("curriculum_labeling", model=MLP)
    rounds = {**config["method"], "rule": {"name": "percentile", "percentile": percentile}}
    return config | {"phases": (*before, {"method": rounds})}


def test_pseudo_labels_come_from_a_trained_network_of_any_method(tmp_path, monkeypatch):
    """The classifier of the phase before labels the images; there must be one."""
    seen, enter = [], Loop.enter

    def record(self, index):
        enter(self, index)
        if index == 1:
            hidden = ~self.table["pinned"]
            seen.append(np.mean(self.table["label"][hidden] == self.view.truth[hidden]))
            raise KeyboardInterrupt

    supervised = tiny("supervised", model=MLP)
    before = {key: supervised[key] for key in ("method", "batch")} | {"steps": 60}
    before["optimizer"] = supervised["optimizer"] | {"learning_rate": 0.03}
    monkeypatch.setattr(Loop, "enter", record)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(curriculum(before, percentile=0.0), tmp_path / "after another method")
    assert seen[0] > 0.5  # of an untrained network: 0.1

    contrastive = tiny("simclr", model=MLP)
    for phases in ((), ({key: contrastive[key] for key in ("method", "batch", "optimizer")} | {"steps": 2},)):
        with pytest.raises(ConfigError, match="percentile goes by the network of the phase before, and "):
            labelfx.train(curriculum(*phases, percentile=0.0), tmp_path / f"{len(phases)} before")


def test_what_takes_long_is_told(monkeypatch, capsys):
    monkeypatch.setattr(metrics, "PATIENCE", 0.05)
    with metrics.telling("reading the images"):
        time.sleep(0.3)
    with metrics.telling("nothing"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == "reading the images ...\n"


def test_a_line_between_two_logs_that_are_far_apart(tmp_path, monkeypatch, capsys):
    """The metrics of the last log, which are written one log late, or else the step that the run is at."""
    monkeypatch.setattr(metrics, "PATIENCE", 0.2)
    recorded = record.Record(metrics.Progress("moco", 100))
    recorded.writer = metrics.Writer(tmp_path, start=0)
    recorded.alive(1)
    for step in (2, 3):
        time.sleep(0.3)
        recorded.alive(step)
        recorded.alive(step)
        recorded.keep(step, {"loss": jnp.float32(0.5)}, {"loss": jnp.int32(metrics.NEVER)})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "moco  step 2/100" and second.startswith("moco  step 2/100 ") and "loss 0.5" in second
    recorded.writer.close()
