"""What a newcomer types: `labelfx.load(...)(FILE)`, `predict`, `fit`, `compare`, and what they say of a mistake."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import ENCODER, tiny

import labelfx
from labelfx.config import ConfigError, read_json
from labelfx.data import DataError, Dataset, Split
from labelfx.data.decode import decode
from labelfx.labels.answers import write_answers
from labelfx.loop.picks import labels_of
from labelfx.reports import label_budgets

TEXTS = Path(__file__).parent / "pretrained" / "bert"
MLP = {"name": "mlp", "hidden": (8,), "dtype": "float32"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Colour pictures of any size, of two classes and without; one is no image, and one is hidden."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for row in range(60):
        kind = row % 2
        size = (24 + row % 5, 30, 3)
        image = np.clip(rng.normal(70 + 110 * kind, 20, size), 0, 255).astype(np.uint8)
        place = ("train", "test", "unlabelled")[row % 3]
        path = root / place / ("" if place == "unlabelled" else ("dark", "light")[kind]) / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (root / "unlabelled" / "notes.txt").write_text("no image")
    (root / "unlabelled" / ".hidden.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey")
    labelfx.train(tiny("supervised", model=MLP, steps=30), folder)
    return labelfx.load(folder)


def test_an_encoder_takes_pictures_however_they_are_given(grey, photos, capsys):
    files = sorted(photos.glob("train/*/*.png"))
    expected = grey(np.stack([decode(path, grey.shape) for path in files]))
    arrays = [np.asarray(Image.open(path)) for path in files]
    for given in (
        files,
        [*map(str, files)],
        arrays,
        [Image.open(path) for path in files],
        np.array([*map(str, files)]),
    ):
        np.testing.assert_array_equal(grey(given), expected)
    for one in (files[3], str(files[3]), arrays[3], Image.open(files[3])):
        np.testing.assert_allclose(grey(one), expected[3:4], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(grey.predict(one), grey.predict(files)[3:4], rtol=1e-5, atol=1e-5)
    alike = [path for path in range(len(files)) if arrays[path].shape == arrays[0].shape]
    np.testing.assert_allclose(
        grey(np.stack([arrays[i] for i in alike])), expected[alike], rtol=1e-5, atol=1e-5
    )  # of another size than the run's, and in colour
    np.testing.assert_allclose(grey([arrays[0], files[1]]), expected[:2], rtol=1e-5, atol=1e-5)
    image = arrays[0][..., 0]
    np.testing.assert_array_equal(grey(image), grey(Image.fromarray(image)))  # [H, W]
    np.testing.assert_array_equal(grey(np.dstack([arrays[0], image])), grey(Image.open(files[0])))  # RGBA

    names, images = labelfx.read_images(photos / "train", grey.shape)
    assert names.tolist() == [path.relative_to(photos / "train").as_posix() for path in files]
    np.testing.assert_array_equal(grey(images), grey(photos / "train"))
    assert images.dtype == np.uint8 and images.shape[1:] == grey.shape and not capsys.readouterr().err
    assert len(grey(str(photos))) == 60
    assert "1 of 61 files left out: unlabelled/notes.txt: not an image" in capsys.readouterr().err


def test_what_is_no_picture_is_one_line(grey, photos, tmp_path):
    with pytest.raises(DataError, match="nowhere.png: cannot be read as an image .no file, or a link to none"):
        grey("nowhere.png")
    with pytest.raises(DataError, match="notes.txt: cannot be read as an image .of no known format"):
        grey([photos / "unlabelled/notes.txt"])
    with pytest.raises(DataError, match="not one of its 0 files can be read"):
        labelfx.read_images(tmp_path, (8, 8, 3))
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        labelfx.read_images("nowhere", (8, 8, 3))
    with pytest.raises(ValueError, match=r"uint8 \[8, 8, 2\]: an image is uint8"):
        grey(np.zeros((3, 8, 8, 2), np.uint8))
    with pytest.raises(DataError, match="an image: pixels are of mode F"):
        grey(Image.new("F", (9, 9)))


def test_vectors_and_sentences(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    config = tiny("supervised", model=MLP, evals={}, data={"name": "arrays"}, labels={"name": "all_labels"})
    config["method"] = config["method"] | {"augment": {"name": "identity"}}
    y = (x[:, 0] > 0).astype(np.int32)
    labelfx.train(config, tmp_path, dataset=Dataset(Split(x, y), None, ("no", "yes")))
    encoder = labelfx.load(tmp_path)
    for given in (x[:2].astype(np.float64), x[:2].tolist(), [*x[:2]]):
        np.testing.assert_array_equal(encoder(given), encoder(x[:2]))
    np.testing.assert_allclose(encoder(x[1]), encoder(x)[1:2], rtol=1e-6)
    for wrong in (x[:, :3], "a.png", [["a", "b", "c", "d"]], x[:0]):
        with pytest.raises(ValueError, match=r"takes float32 \[N, 4\] with N > 0"):
            encoder(wrong)

    texts = labelfx.load(TEXTS)
    found = texts(["a drum and a choir", "salt"])
    np.testing.assert_allclose(texts("salt"), found[1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(texts(np.array(["a drum and a choir", "salt"])), found)
    assert texts.tokenizer is not None and texts.shape == (texts.tokenizer(["salt"]).shape[1],)
    for wrong in ([], Path("salt"), [1, 2]):
        with pytest.raises(ValueError, match=r"takes int32 \[N, \d+\] with N > 0"):
            texts(wrong)
    assert labelfx.load(ENCODER)(Image.new("RGB", (40, 30))).shape[0] == 1


def lines(path):
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_predictions_are_a_table(grey, photos, tmp_path):
    names, found = labelfx.predict(grey.workdir, photos / "test", tmp_path / "out.csv")
    np.testing.assert_allclose(found, grey.predict(photos / "test"), rtol=1e-6)
    expected = [
        {"file": name, "class": grey.class_names[row.argmax()], "probability": f"{row.max():.6g}"}
        for name, row in zip(sorted(names), found, strict=True)
    ]
    assert lines(tmp_path / "out.csv") == expected and names[0].startswith("dark/")


def test_predictions_of_several_labels_targets_and_sentences(tmp_path):
    rng = np.random.default_rng(0)
    texts = [f"{word} {row}" for row, word in enumerate(rng.choice(["salt", "drum"], 40))]
    rows = [{"text": text, "label": text[:4], "a": int("salt" in text), "b": 0, "size": len(text)} for text in texts]
    with (tmp_path / "own.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    data = {"name": f"csv:{tmp_path / 'own.csv'}", "inputs": ("text",), "vocab_size": 300, "max_length": 8}
    data |= {"test": "", "test_seed": 0}
    kinds = {
        "class": (("label",), {"name": "cross_entropy", "label_smoothing": 0.0}),
        "several": (("a", "b"), {"name": "binary_cross_entropy", "unknown": "ignore"}),
        "target": (("size",), {"name": "squared_error"}),
    }
    changes = {"steps": 30, "evals": {}, "batch.labelled": 16, "model.width": 8, "devices": 1}
    for task, (labels, objective) in kinds.items():
        config = labelfx.recipe("own_sentences") | {"data": data | {"labels": labels, "task": task}}
        config["method"] = config["method"] | {"objective": objective}
        for path, value in changes.items():
            *parents, last = path.split(".")
            node = config
            for parent in parents:
                node = node[parent]
            node[last] = value
        labelfx.train(config, tmp_path / task)
        _, values = labelfx.predict(tmp_path / task, tmp_path / "own.csv", tmp_path / f"{task}.csv")
        found = lines(tmp_path / f"{task}.csv")
        assert [line["text"] for line in found[:: 2 if task == "several" else 1]] == texts
        assert found[-1]["file"] == "own.csv/39"
        if task == "class":
            assert np.mean([line["class"] == line["text"][:4] for line in found]) > 0.9
        elif task == "several":
            assert [float(line["probability"]) for line in found] == pytest.approx(values.ravel(), rel=1e-5)
            assert [line["class"] for line in found[:4]] == ["a", "b", "a", "b"]
        else:
            assert [float(line["value"]) for line in found] == pytest.approx(values[:, 0], rel=1e-5)
    with pytest.raises(ConfigError, match=r"--images=.*: must be a file .csv .jsonl .parquet of sentences"):
        labelfx.predict(tmp_path / "class", tmp_path, tmp_path / "other.csv")
    (tmp_path / "no.csv").write_text("sentence\na\n")
    with pytest.raises(ConfigError, match=r"--images=.*no.csv: no column 'text'; there are 'sentence'"):
        labelfx.predict(tmp_path / "class", tmp_path / "no.csv", tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()


def test_what_cannot_be_predicted_is_one_line(grey, photos, tmp_path):
    labelfx.train(tiny("hard_negative", model=MLP), tmp_path / "run")
    cases = {
        "that run trained no classifier; take a recipe with a classifier": (tmp_path / "run", photos, "out.csv"),
        "--out=.*out.txt: must end in .csv": (grey.workdir, photos, "out.txt"),
        "--images=nowhere: no such folder": (grey.workdir, "nowhere", "out.csv"),
        "--images=own.csv: must be a folder of images; that run reads no sentences": (
            grey.workdir,
            "own.csv",
            "out.csv",
        ),
    }
    for message, (run, data, out) in cases.items():
        with pytest.raises(ConfigError, match=message):
            labelfx.predict(run, data, tmp_path / out)
        assert not (tmp_path / out).exists()


def test_from_a_folder_without_labels_to_predictions(grey, photos, tmp_path):
    """What there is to test on is labelled, the rest not yet: which to label, a network of these, and its answers."""
    root, out = tmp_path / "own", tmp_path / "asked"
    for name in ("test", "unlabelled"):
        shutil.copytree(photos / name, root / name)
    small = {"model": MLP, "steps": 25, "data.image_size": 8, "evals": {"head": {}}, "devices": 1}
    with pytest.raises(ConfigError, match="no row is labelled, and images are learnt from by their labels"):
        labelfx.fit(root, tmp_path / "run", backbone=ENCODER)
    asked = labelfx.suggest(root, grey.workdir, 8, out)
    assert len(asked) == 8 and all(name.startswith("unlabelled/") for name in asked)
    write_answers(out / "suggested.csv", {name: ("dark", "light")[int(name[-6:-4]) % 2] for name in asked}, [])
    how = {"recipe": "supervised", "labels": out / "suggested.csv"}
    encoder = labelfx.fit(root, tmp_path / "run", **how, changes=small)
    assert encoder.class_names == ("dark", "light")
    assert read_json(tmp_path / "run/results.json")["metrics"]["head"]["accuracy"] > 0.9
    names, found = labelfx.predict(tmp_path / "run", root, tmp_path / "said.csv")
    assert len(names) == 40 and found[["/light/" in name for name in names]].argmax(1).mean() > 0.9
    write_answers(out / "suggested.csv", {asked[0]: "lihgt"}, [])
    with pytest.raises(ConfigError, match="says 'lihgt' of unlabelled.*did you mean 'light'"):
        labelfx.fit(root, tmp_path / "other", **how, changes=small)


@pytest.mark.slow
def test_fit_picks_a_recipe_and_says_why(photos, tmp_path, capsys):
    small = {"model": MLP, "steps": 25, "data.image_size": 8, "evals": {}, "devices": 1}
    encoder = labelfx.fit(photos, tmp_path / "own", changes=small)
    said = capsys.readouterr().err
    assert said.startswith("recipe own_images: no encoder is given, so a network learns from all images, and then from")
    assert "\n20 of 40 rows are labelled; 1,300 steps of conv3" in said
    assert encoder.predict(photos / "test/light").argmax(1).mean() > 0.9 and encoder.class_names == ("dark", "light")
    config = read_json(tmp_path / "own/config.json")
    assert config["batch"] == {"labelled": 0, "unlabelled": 40} and config["phases"][1]["batch"]["labelled"] == 40
    assert config["method"]["augment"] == config["phases"][1]["method"]["augment"]

    small = {"model.image_size": 16, "data.image_size": 16, "steps": 30, "evals": {}, "devices": 1}
    encoder = labelfx.fit(photos, tmp_path / "frozen", backbone=ENCODER, changes=small)
    assert "recipe frozen: a classifier on the features of " in capsys.readouterr().err
    assert read_json(tmp_path / "frozen/config.json")["model"]["file"] == str(ENCODER)
    assert encoder.predict(photos / "test").shape == (20, 2)

    with pytest.raises(ConfigError, match="no row is labelled, and images are learnt .*labelfx.load.backbone. gives"):
        labelfx.fit(photos / "unlabelled", tmp_path / "none", backbone=ENCODER)
    with pytest.raises(ConfigError, match="data = 'nowhere': neither a folder, nor a file .csv .jsonl .parquet"):
        labelfx.fit("nowhere", tmp_path / "none")


def test_fit_takes_what_is_in_memory(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 3))
    y = np.where(x[:, 0] > 0, "yes", "no").astype(object)
    y[50:] = None
    encoder = labelfx.fit(
        (x, y), tmp_path / "classes", changes={"steps": 200, "optimizer.learning_rate": 0.01, "devices": 1}
    )
    assert np.mean(encoder.predict(x).argmax(1) == (x[:, 0] > 0)) > 0.9 and encoder.class_names == ("no", "yes")
    texts = [f"{'salt' if row % 2 else 'drum'} {row}" for row in range(40)]
    small = {"steps": 40, "model.width": 8, "devices": 1}
    encoder = labelfx.fit((texts, [text[:4] for text in texts]), tmp_path / "texts", changes=small)
    assert encoder.predict(["the salt", "a drum"]).argmax(1).tolist() == [1, 0]
    (tmp_path / "own.csv").write_text("said,kind\n" + "".join(f"{text},{text[:4]}\n" for text in texts))
    small |= {"data.inputs": ("said",), "data.labels": ("kind",), "evals": {}}
    encoder = labelfx.fit(tmp_path / "own.csv", tmp_path / "table", changes=small)
    assert encoder.class_names == ("drum", "salt")
    for y, message in (([1] * 80, "y: 1 class; at least 2"), ([0, "a"] * 40, "must be of one type"), ([1, 2], "y 2")):
        with pytest.raises(ConfigError, match=message):
            labelfx.fit((x, y), tmp_path / "none")


@pytest.mark.parametrize(
    ("y", "labels", "classes"),
    [
        ([3, -1, 5, 3], [0, -1, 1, 0], [3, 5]),
        (["b", None, "a", "", -1], [1, -1, 0, -1, -1], ["a", "b"]),
        ([1.0, np.nan, 2.0, -1.0], [0, -1, 1, -1], [1.0, 2.0]),
        ([True, False], [1, 0], [False, True]),
        ([0.5, np.nan], [0.5, np.nan], []),
        ([[1, 0], [-1, 1]], [[1, 0], [-1, 1]], [0, 1]),
    ],
)
def test_labels_in_the_convention_of_scikit_learn(y, labels, classes):
    found, names = labels_of(y)
    np.testing.assert_array_equal(found, labels)
    assert names == classes and found.dtype == {0: "float32"}.get(len(classes), "int8" if found.ndim == 2 else "int32")


def test_compare_picks_what_is_not_said(photos, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(label_budgets.sweep, "check", lambda *_: None)
    monkeypatch.setattr(label_budgets.sweep, "work_off", asked.extend)
    monkeypatch.setattr(label_budgets, "report", lambda *_: None)
    labelfx.compare(photos, tmp_path / "photos")
    assert {job.folder.relative_to(tmp_path / "photos").parts[0] for job in asked} == {"seed_0", "seed_1", "seed_2"}
    assert {job.folder.name for job in asked if not job.pretrained} == {
        *("supervised", "fixmatch", "hard_negative", "hard_negative_finetune")
    }
    data = asked[0].config["data"]
    assert data["name"] == f"folder:{photos}" and (data["image_size"], data["channels"]) == (24, 3)
    said = capsys.readouterr().err
    assert "images of 24 pixels a side, as this machine has no accelerator (half of yours have 26 or more)" in said
    assert "methods supervised, hard_negative, fixmatch; labels 1, 4, all; 3 seeds" in said

    assert "hard_negative: batches of rows (labelled=0, unlabelled=40)" in said  # as there are no more
    assert {job.config["batch"]["unlabelled"] for job in asked if job.folder.name == "hard_negative"} == {40}

    asked.clear()
    labelfx.compare("digits", tmp_path / "digits", methods=["moco"], labels=[4], seeds=[7], changes={"steps": 9})
    folders = {job.folder.relative_to(tmp_path / "digits").as_posix() for job in asked}
    at_budget = ("supervised", "moco_probe", "moco_finetune")
    assert folders == {"seed_7/moco", *(f"seed_7/4_per_class/{name}" for name in at_budget)}
    assert all(job.config["steps"] == 9 for job in asked if not job.pretrained)
    with pytest.raises(ConfigError, match="data: arrays in memory are read by labelfx.fit"):
        labelfx.compare((np.zeros((9, 2)), [0, 1, 1] * 3), tmp_path / "none")


def test_a_part_is_swapped_by_its_name(capsys):
    found = labelfx.recipe("supervised", {"labels.name": "all_labels", "data.merge": ((0, 1), (2,))})
    assert found["labels"] == {"name": "all_labels"}
    assert capsys.readouterr().err == "config.labels.name = all_labels: goes without k, which it does not take\n"
    with pytest.raises(ConfigError, match=r"labels.fraction: missing; must be .* \(and balanced, missing too\)$"):
        labelfx.recipe("supervised", {"labels.name": "fraction"})
    assert not capsys.readouterr().err
    found = labelfx.recipe("supervised", {"labels.name": "fraction", "labels.fraction": 0.1, "labels.balanced": True})
    assert found["labels"] == {"name": "fraction", "fraction": 0.1, "balanced": True}
