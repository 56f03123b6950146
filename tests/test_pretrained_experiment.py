"""The table of a pretrained encoder on CIFAR-10: its runs are configurations, and its page says what there is."""

import numpy as np
import pytest
from recipes import ENCODER

import labelfx
from experiments import pretrained
from labelfx import config as configs


def test_every_line_is_a_configuration(tmp_path):
    every = pretrained.lines(str(ENCODER))
    names = [line.name for line in every]
    for line in every:
        for budget in line.budgets:
            config = labelfx.recipe(line.recipe, line.changes | {"labels": pretrained.BUDGETS[budget]})
            configs.check(config)
            assert {where.split("/")[0] for where in line.shown.values()} <= {*config["evals"], "linear_probe"}
        before = {"", *names[: names.index(line.name)]}
        assert {*line.votes, line.teacher} <= before
    assert len({row for line in every for row in line.shown}) == sum(len(line.shown) for line in every)


@pytest.mark.slow  # four small runs
def test_a_line_goes_on_where_it_was_and_is_paired(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8, 1), np.uint8), np.arange(60) % 3
    sets = {"train_images": images, "train_labels": labels, "test_images": images[:9], "test_labels": labels[:9]}
    np.savez(tmp_path / "rows.npz", **sets)
    few = {"steps": 25, "batch.labelled": 16}
    model = {"model.file": str(ENCODER), "model.image_size": 16}
    first = pretrained.Line("frozen", "frozen", model | few | {"evals": pretrained.EVALS}, {})
    first = first._replace(shown={pretrained.BASELINE: "linear_probe/accuracy"}, budgets=("1 a class",), seeds=2)
    voted: dict = {"method.objective": {"name": "vote_cross_entropy"}} | few
    voted |= {"model": {"name": "mlp", "hidden": (4,), "dtype": "float32"}, "method.augment": {"name": "identity"}}
    second = first._replace(name="votes", recipe="supervised", changes=voted | {"evals": {"head": {}}})
    second = second._replace(shown={"student": "head/accuracy"}, votes=("frozen",))
    monkeypatch.setattr(pretrained, "lines", lambda encoder: [first, second])
    monkeypatch.setattr(pretrained, "HERE", tmp_path / "here")
    for seeds in (range(1), range(5)):
        pretrained.run(tmp_path, "", tmp_path, seeds)
    page = (tmp_path / "here/README.md").read_text()
    assert f"| {pretrained.BASELINE} |" in page and "| student |" in page and "<br>(" in page
    before = (tmp_path / "here/results.json").read_bytes()
    pretrained.run(tmp_path, "", tmp_path, range(5))
    assert (tmp_path / "here/results.json").read_bytes() == before
