"""Where a run may live, and what only a path on this machine can be."""

import os
from pathlib import Path

import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx import scores
from labelfx.config import ConfigError

CONFIG = tiny("supervised", model={"name": "mlp", "hidden": (16,), "dtype": "float32"}, evals={"head": {}})
ADDRESS = "s3://bucket/run"
DATA = {"name": "digits", "placement": "host"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    labelfx.train(CONFIG, folder)
    return folder


REFUSED = {
    "train": lambda run: labelfx.train(CONFIG, ADDRESS),
    "train, a path": lambda run: labelfx.train(CONFIG, Path(ADDRESS)),
    "evaluate": lambda run: labelfx.evaluate(ADDRESS),
    "evaluate to": lambda run: labelfx.evaluate(run, out=ADDRESS),
    "load": lambda run: labelfx.load(ADDRESS),
    "report": lambda run: labelfx.report([run, ADDRESS]),
    "report to": lambda run: labelfx.report([run], ADDRESS + ".html"),
    "table": lambda run: labelfx.table([ADDRESS]),
    "scores": lambda run: scores.draw(ADDRESS),
    "features": lambda run: labelfx.features(ADDRESS, "test", "out.npz"),
    "features of": lambda run: labelfx.features(run, ADDRESS, "out.npz"),
    "features to": lambda run: labelfx.features(run, "test", ADDRESS + ".npz"),
    "export": lambda run: labelfx.export(ADDRESS, "out"),
    "export to": lambda run: labelfx.export(run, ADDRESS),
    "benchmark": lambda run: labelfx.benchmark(DATA, ["fixmatch"], [1], [0], ADDRESS),
    "mine": lambda run: mine(queries=ADDRESS),
    "mine to": lambda run: mine(out=ADDRESS),
    "teacher": lambda run: labelfx.train(tiny("distillation", teacher=ADDRESS), "run"),
    **{
        f"data {name}": lambda run, data={"name": name, **more}: labelfx.train(CONFIG | {"data": data}, "run")
        for name, more in {
            f"folder:{ADDRESS}": {"image_size": 8, "channels": 1},
            f"npz:{ADDRESS}": {},
            **{name: {"data_dir": ADDRESS} for name in ("mnist", "fashion_mnist", "cifar10")},
            "tfds:mnist": {"data_dir": ADDRESS, "train_split": "train", "test_split": "test", "image_size": 0},
            "sts": {"data_dir": ADDRESS, "vocab_size": 100, "max_length": 8},
            "sick": {"data_dir": ADDRESS, "vocab_size": 100, "max_length": 8, "split": "dev"},
            "cranfield": {"data_dir": ADDRESS, "vocab_size": 100, "max_length": 8, "rows": "documents"},
        }.items()
    },
}


def mine(**changes):
    np.save("x.npy", np.eye(4, dtype=np.float32))
    np.save("p.npy", np.arange(4))
    files = {"queries": "x.npy", "index": "x.npy", "positives": "p.npy", "out": "out.npz"} | changes
    return labelfx.mine(**files, similarity="inner", candidates=2, count=1, rule="top", seed=0)


@pytest.mark.parametrize("what", REFUSED)
def test_an_address_is_refused_before_anything_is_made_of_it(what, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"(^|: )s3:/{1,2}bucket/run(\.\w+)?: an address, where only a path on"):
        REFUSED[what](finished)
    assert not {"s3:", "out", "out.npz", "report.html"} & set(os.listdir())
