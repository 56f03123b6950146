"""`labelfx.suggest`: a table that a person fills in, from which the next call and a run go on."""

import csv
import functools
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from recipes import recipe, tiny

import labelfx
from experiments import suggest as experiment
from labelfx.config import ConfigError
from labelfx.data import DataError
from labelfx.data.labels import queried
from labelfx.data.sources import digits
from labelfx.evals import kept
from labelfx.labels import queries
from labelfx.labels.answers import answers, write_answers
from labelfx.reports.contact_sheet import contact_sheet

DIGITS = digits().train
MLP = {"name": "mlp", "hidden": (32,), "dtype": "float32"}
TYPICAL = functools.partial(queries.typiclust, neighbours=20, max_clusters=500)
COUNT = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    labels = {"name": "per_class", "k": 2, "validation": 5}
    labelfx.train(tiny("supervised", model=MLP, labels=labels), folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Digits of 8 x 8 pixels, none of them labelled, and a copy of one."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "unlabelled").mkdir()
    for row in [*range(COUNT), 7]:
        name = "copy" if (root / f"unlabelled/{row:03}.png").exists() else f"{row:03}"
        Image.fromarray(DIGITS.inputs[row, ..., 0]).save(root / f"unlabelled/{name}.png")
    return root


def table(folder):
    with (folder / "suggested.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fill(folder):
    """As a person would, who knows the digits."""
    lines = table(folder)
    for line in lines:
        line["label"] = line["label"] or f"digit {DIGITS.labels[int(line['file'][-7:-4])]}"
    write_answers(folder / "suggested.csv", {line["file"]: line["label"] for line in lines}, [])
    return len(lines)


def test_from_no_label_to_a_run(run, pictures, tmp_path):
    first = labelfx.suggest(pictures, run, 10, tmp_path)
    assert [line["file"] for line in table(tmp_path)] == first and len({*first}) == 10
    assert {line["label"] for line in table(tmp_path)} == {""}
    assert first == labelfx.suggest(pictures, run, 10, tmp_path / "again")
    with pytest.raises(
        ConfigError, match=r"^--strategy=margin: goes by probabilities of classes, which takes labelled"
    ):
        labelfx.suggest(pictures, run, 10, tmp_path, strategy="margin")

    fill(tmp_path)
    before = (tmp_path / "suggested.csv").read_text()
    with pytest.raises(ConfigError, match=r"suggested.csv: holds 10 labels that --labels has not; give it, or another"):
        labelfx.suggest(pictures, run, 10, tmp_path)
    assert (tmp_path / "suggested.csv").read_text() == before

    second = labelfx.suggest(pictures, run, 6, tmp_path, strategy="margin", labels=tmp_path / "suggested.csv")
    assert len({*first, *second}) == 16
    assert [line["label"] != "" for line in table(tmp_path)] == [True] * 10 + [False] * 6

    # What is still empty is no label; the classes are those of the table, which the folder does not have.
    labels = {"name": "file", "path": str(tmp_path / "suggested.csv")}
    data = {"name": f"folder:{pictures}", "image_size": 8, "channels": 1}
    config = tiny("supervised", model=MLP, data=data, labels=labels)
    results = labelfx.train(config, tmp_path / "run")
    assert results["labels"]["n"] == 10
    names = results["data"]["class_names"]
    assert names == sorted({*answers(tmp_path / "suggested.csv").values()}) and names[0].startswith("digit ")
    labelfx.train(config, tmp_path / "run")

    # The next call may start from that run, and what it was told counts.
    third = labelfx.suggest("train", tmp_path / "run", 4, tmp_path / "third", strategy="badge")
    assert not {*third} & {*first}
    assert [line["file"] for line in table(tmp_path / "third")] == [*sorted(first), *third]

    # More labels leave that run as it is; others than it was told do not.
    fill(tmp_path)
    labelfx.train(config, tmp_path / "run")
    other = {name: names[0] for name in answers(tmp_path / "suggested.csv")} | {second[0]: names[1]}
    write_answers(tmp_path / "suggested.csv", other, [])
    with pytest.raises(ConfigError, match="its rows do not have the labels they had"):
        labelfx.train(config, tmp_path / "run")


@pytest.mark.parametrize("strategy", ["uniform", "k_centre", {"name": "probcover", "clusters": 3, "purity": 0.5}])
def test_a_copy_is_suggested_once(strategy, run, pictures, tmp_path):
    found = labelfx.suggest(pictures, run, COUNT, tmp_path, strategy=strategy)
    assert {*found} == {f"unlabelled/{row:03}.png" for row in range(COUNT)}
    with pytest.raises(ConfigError, match=f"count = {COUNT + 1}: {COUNT} rows are left to ask for"):
        labelfx.suggest(pictures, run, COUNT + 1, tmp_path, strategy=strategy)
    write_answers(tmp_path / "told.csv", {"unlabelled/copy.png": "7"}, [])
    found = labelfx.suggest(pictures, run, COUNT - 1, tmp_path, strategy=strategy, labels=tmp_path / "told.csv")
    assert "unlabelled/007.png" not in found


def test_rows_are_encoded_once(run, pictures, tmp_path, monkeypatch):
    """In either layout; but for files that have changed, and of one that cannot be read the next call knows it too."""
    seen, features = [], kept.features

    def counted(model, variables, inputs, rows, **how):
        seen.append(len(rows))
        return features(model, variables, inputs, rows, **how)

    monkeypatch.setattr(kept, "features", counted)
    own = tmp_path / "photos/unlabelled"
    shutil.copytree(pictures / "unlabelled", own)
    damaged = bytearray((own / "050.png").read_bytes())
    damaged[-20] ^= 255  # its header can be read
    (own / "050.png").write_bytes(damaged)
    for data, out in ((tmp_path / "photos", tmp_path / "a"), (own, tmp_path / "b")):
        seen.clear()
        first = labelfx.suggest(data, run, COUNT - 1, out)
        again = labelfx.suggest(data, run, COUNT - 1, out)
        assert seen == [COUNT + 1] and again == first
        assert not any("050" in name for name in again) and len({*again}) == COUNT - 1
    Image.fromarray(DIGITS.inputs[200, ..., 0]).save(own / "003.png")
    changed = labelfx.suggest(own, run, COUNT - 1, tmp_path / "b")
    assert seen == [COUNT + 1] * 2 and {*changed} == {*first}
    seen.clear()
    labelfx.suggest("train", run, 3, tmp_path / "c")
    labelfx.suggest("train", run, 3, tmp_path / "c", labels=tmp_path / "c/suggested.csv", strategy="margin")
    assert seen == [len(DIGITS.labels)]


def test_folders_of_either_layout(run, tmp_path):
    """Of that of the source `folder`, what lies in a class's folder is labelled and what is to be tested on left alone;
    of any other, every image is to be labelled."""
    for row, name in enumerate(["train/one/0", "train/two/1", "test/one/2", "test/two/3", *"456789"]):
        path = tmp_path / "own" / (f"{name}.png" if "/" in name else f"unlabelled/{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS.inputs[row, ..., 0]).save(path)
    found = labelfx.suggest(tmp_path / "own", run, 6, tmp_path / "out", strategy="margin")
    assert {*found} == {f"unlabelled/{row}.png" for row in range(4, 10)}
    told = {"train/one/0.png": "one", "train/two/1.png": "two"}
    assert answers(tmp_path / "out/suggested.csv") == told

    write_answers(tmp_path / "filled.csv", told | {found[0]: "two"}, found[1:])
    data = {"name": f"folder:{tmp_path / 'own'}", "image_size": 8, "channels": 1}
    labels = {"name": "file", "path": str(tmp_path / "filled.csv")}
    config = tiny("supervised", model=MLP, data=data, labels=labels, batch={"labelled": 3, "unlabelled": 0})
    results = labelfx.train(config, tmp_path / "run")
    assert results["labels"]["n"] == 3 and results["data"]["class_names"] == ["one", "two"]

    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="^--data=.*none: not one of its 0 files can be read as an image"):
        labelfx.suggest(tmp_path / "none", run, 10, tmp_path / "other")
    strange = tmp_path / "strange"
    strange.mkdir()
    shutil.copy(tmp_path / "own/unlabelled/5.png", os.fsencode(strange) + b"/\xff.png")
    with pytest.raises(ConfigError, match=r"^--data=.*: '\\udcff.png' is no Unicode; give the file another name$"):
        labelfx.suggest(strange, run, 1, tmp_path / "other")
    (tmp_path / "own/unlabelled").rename(tmp_path / "own/more")
    found = labelfx.suggest(tmp_path / "own", run, 10, tmp_path / "other")
    assert {name.split("/")[0] for name in found} == {"train", "test", "more"}


def test_of_a_run_what_its_view_tells_is_labelled(run, tmp_path):
    found = labelfx.suggest("train", run, 5, tmp_path, strategy="entropy", seed=3)
    told = json.loads((run / "labels.json").read_text())["rows"]
    expected = {f"train/{row}": str(DIGITS.labels[row]) for row in told}
    assert answers(tmp_path / "suggested.csv") == expected and len(expected) == 20
    assert len(found) == 5 and not {*found} & expected.keys()
    assert (tmp_path / "suggested.html").read_text().count("<img ") == 5

    # On the rows of a source without files too the table is a label view.
    write_answers(tmp_path / "filled.csv", {name: "3" for name in found}, ["train/0"])
    labels = {"name": "file", "path": str(tmp_path / "filled.csv")}
    results = labelfx.train(tiny("supervised", model=MLP, labels=labels), tmp_path / "run")
    assert results["labels"]["n"] == 5 and len(results["data"]["class_names"]) == 10
    kept = json.loads((tmp_path / "run/labels.json").read_text())["rows"]
    assert [f"train/{row}" for row in kept] == sorted(found, key=lambda name: int(name[6:]))


def test_sentences(tmp_path):
    words = [
        "the soup is salty",
        "bread and salt",
        "a drum and a choir",
        "the song of a choir",
        "good soup, good bread",
    ]
    lines = [{"text": f"{words[i % 5]}, {i}", "label": "food" if i == 0 else ""} for i in range(40)]
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.DictWriter(file, ["text", "label"]).writeheader()
        csv.DictWriter(file, ["text", "label"]).writerows(lines)
    data = {"name": f"csv:{tmp_path / 'own.csv'}", "inputs": ("text",), "labels": (), "task": "class"}
    data |= {"vocab_size": 300, "max_length": 12, "test": "", "test_seed": 0}
    lines[1]["label"] = "music"
    write_answers(tmp_path / "two.csv", {"train/0": "food", "train/2": "music"}, [])
    config = recipe("own_sentences") | {"data": data, "steps": 21, "evals": {}, "devices": 1}
    config |= {"labels": {"name": "file", "path": str(tmp_path / "two.csv")}, "batch": {"labelled": 2, "unlabelled": 0}}
    labelfx.train(config, tmp_path / "run")

    for data, labelled in ((tmp_path / "own.csv", ["train/0"]), ("train", ["train/0", "train/2"])):
        found = labelfx.suggest(data, tmp_path / "run", 3, tmp_path / "out")
        rows = table(tmp_path / "out")
        assert [row["file"] for row in rows] == [*labelled, *found]
        page = (tmp_path / "out/suggested.html").read_text()
        for row in rows[len(labelled) :]:
            said = lines[int(row["file"][6:])]["text"]
            assert row["text"].replace(" ", "") == said.replace(" ", "") and row["text"].strip() in page
        (tmp_path / "out/suggested.csv").unlink()
    with pytest.raises(ConfigError, match="--data=.*pics.csv: holds sentences; .*images is an encoder of other rows"):
        (tmp_path / "pics.csv").write_text("text\nhello\n")
        labelfx.train(tiny("supervised", model=MLP), tmp_path / "images")
        labelfx.suggest(tmp_path / "pics.csv", tmp_path / "images", 1, tmp_path / "out")


def test_a_sheet_stays_small_and_readable():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(256, size=(400, 300, 3), dtype=np.uint8)) for _ in range(150)]
    page = contact_sheet("Which", "these", [f"a & b/{i}.png" for i in range(150)], noise)
    assert len(page) < 1.5e6 and page.count("<img ") == 150 and "a &amp; b/149.png" in page
    assert "default-src 'none'" in page and not re.search(r"https?://|<script", page)
    cards = page[page.index(".cards{") :]
    sizes = [float(size) for size in re.findall(r"font-size:([\d.]+)rem", cards)]
    assert sizes and 16 * min(sizes) >= 13
    assert "<p>a &lt; b</p>" in contact_sheet("Which", "these", ["train/0"], ["a < b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\nnowhere.png,3\n", r"names nowhere.png, which is not in .*; as unlabelled/000.png is"),
        ("file\n000.png\n", "no column 'label'"),
        ("file,label\na.png,1\na.png,2\n", "row 2 says '2' of a.png, of which a row before says '1'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(content, message, run, pictures, tmp_path):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        labelfx.suggest(pictures, run, 3, tmp_path / "out", labels=tmp_path / "labels.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"train/9999": "1"}, "config.labels: .*names train/9999, which is no training row; rows are called train/0"),
        ({"train/4": "11"}, "config.labels: .*says '11' of train/4; "),
        ({}, "config.labels: rows is empty"),
    ],
)
def test_a_table_that_is_no_label_view_is_one_line(labels, message, tmp_path):
    write_answers(tmp_path / "labels.csv", labels, ["train/1"])
    view = {"name": "file", "path": str(tmp_path / "labels.csv")}
    with pytest.raises(ConfigError, match=message):
        labelfx.train(tiny("supervised", model=MLP, labels=view), tmp_path / "run")


def test_only_classes_are_filled_in(tmp_path):
    write_answers(tmp_path / "labels.csv", {"train/1": "1"}, [])
    with pytest.raises(ConfigError, match="labels of these data are target; only classes can be filled in"):
        view = {"name": "file", "path": str(tmp_path / "labels.csv")}
        labelfx.train(tiny("regression", labels=view), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "typicust"}, "strategy.name = 'typicust': .*did you mean 'typiclust'"),
        ({"strategy": {"name": "clue"}}, "strategy.temperature: missing; must be a number > 0"),
        ({"count": 0}, "strategy.count = 0: must be an integer from 1"),
        ({"data": "nowhere"}, "--data=nowhere: neither a folder, nor a file .csv .jsonl .parquet, nor 'train'"),
        ({"labels": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"backbone": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_suggested_is_one_line(changes, message, run, pictures, tmp_path):
    how = {"data": pictures, "backbone": run, "count": 3, "out": tmp_path / "out"} | changes
    with pytest.raises((ConfigError, DataError, FileNotFoundError), match=message):
        labelfx.suggest(**how)
    assert not (tmp_path / "out").exists()


def test_the_experiment_goes_on_where_it_was(run, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "HERE", tmp_path / "page")
    monkeypatch.setattr(experiment, "BUDGETS", (10, 20))
    calls, rounds = [], experiment.rounds
    monkeypatch.setattr(experiment, "rounds", lambda *how: calls.append(how) or rounds(*how))
    monkeypatch.setattr(experiment, "STRATEGIES", ("uniform", experiment.BALANCED, "clue"))
    experiment.run("digits", tmp_path, str(run), tmp_path, range(1))
    experiment.run("digits", tmp_path, str(run), tmp_path, range(2))
    assert len(calls) == 6
    done = json.loads((tmp_path / f"page/digits_{run.stem}.json").read_text())
    for seeds in done.values():
        assert seeds.keys() == {"0", "1"} and all(0.1 < v <= 1 for v in seeds["0"]["accuracy"].values())
    starts = [done[name]["1"]["accuracy"]["10"] for name in ("uniform", "clue")]
    assert starts[0] == starts[1]  # before there are probabilities
    page = (tmp_path / "page/README.md").read_text()
    assert "| balanced (no strategy) |" in page and "### Labels saved" in page
    found = experiment.features("digits", tmp_path, str(run), tmp_path)
    told = experiment._balanced(found["train_labels"], 20, 0)
    assert np.bincount(found["train_labels"][told]).tolist() == [2] * 10 and len({*told}) == 20
    expected = np.mean(found["train_labels"][3] == found["test_labels"])
    assert experiment.tested(found, np.array([3])) == expected


def test_a_label_view_by_a_query_on_features(run, tmp_path):
    """Of another run's encoder or of the rows as they are, once for all that resume."""
    query = {"name": "typiclust", "neighbours": 20, "max_clusters": 500}
    kept = {}
    for name, encoder in (("encoder", str(run)), ("rows", "")):
        labels = {"name": "queried", "n": 15, "start": 5, "query": query, "encoder": encoder}
        results = labelfx.train(tiny("supervised", model=MLP, labels=labels), tmp_path / name)
        assert results["labels"]["n"] == 15 and results["labels"]["view"] == "queried"
        kept[name] = json.loads((tmp_path / name / "labels.json").read_text())["rows"]
    assert kept["encoder"] != kept["rows"]
    x = DIGITS.inputs.reshape(len(DIGITS.labels), -1).astype(np.float32)
    expected = queried(DIGITS.labels, np.random.default_rng(0), lambda _: x, n=15, start=5, query=TYPICAL, encoder="")
    assert kept["rows"] == expected.tolist()
    texts = {"name": "csv:own.csv", "inputs": ("text",), "labels": ("kind",), "task": "class", "test": "10%"}
    rows = "".join(f"text {row},{row % 2}\n" for row in range(40))
    (tmp_path / "own.csv").write_text("text,kind\n" + rows)
    texts |= {"name": f"csv:{tmp_path / 'own.csv'}", "vocab_size": 300, "max_length": 8, "test_seed": 0}
    config = recipe("own_sentences") | {"data": texts, "evals": {}, "labels": labels}
    with pytest.raises(
        ConfigError, match="config.labels: encoder = '': rows are ids, of which nothing tells how alike"
    ):
        labelfx.train(config, tmp_path / "texts")
