"""Texts with labels: sources, the tokenizer that a run keeps, floors, and one clear line for what is damaged."""

import csv
import json

import jax
import numpy as np
import pytest
import scipy.optimize

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import sources, tokens
from labelfx.data.sources import labelled_texts
from labelfx.evals import text as evals
from labelfx.hardware import blank

TOKENS = {"vocab_size": 300, "max_length": 12}


def real(data_root, name):
    if not (data_root / name).is_dir():
        pytest.skip(f"no {data_root / name}")
    return str(data_root / name)


def write_banking77(root, rows=(("a card, please", "card"), ('my "pin"\nis gone', "pin"), ("pins", "pin"))):
    (root / "categories.json").write_text(json.dumps(["pin", "card"]))
    for name, some in (("train", rows), ("test", rows[:2])):
        with (root / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "category"), *some])


def write_clinc150(root):
    intents = {"train": ("b", "a", "a"), "val": ("a",), "test": ("b", "a")}
    found = {part: [[f"say {intent}", intent] for intent in each] for part, each in intents.items()}
    found |= {f"oos_{part}": [["hm", "oos"]] * (i + 1) for i, part in enumerate(intents)}
    (root / "data_full.json").write_text(json.dumps(found))


def write_goemotions(root):
    (root / "labels.txt").write_text("joy\nfear\nneutral\n")
    for part, lines in (("train", ("so happy\t0,1\tx", "meh\t2\ty")), ("dev", ("hm\t2\tz",)), ("test", ("oh\t1\tw",))):
        (root / f"{part}.tsv").write_text("\n".join(lines) + "\n")


def write_wrench(root):
    folder = root / "own"
    folder.mkdir()
    rows = {str(i): {"label": i % 2, "weak_labels": [i % 2, -1, 1], "data": {"text": f"text {i}"}} for i in range(6)}
    for part, some in (("train", rows), ("valid", {"0": rows["0"]}), ("test", {"0": rows["0"], "5": rows["5"]})):
        (folder / f"{part}.json").write_text(json.dumps(some))
    (folder / "label.json").write_text(json.dumps({"0": "ham", "1": "spam"}))
    (folder / "labeled_ids.json").write_text(json.dumps({"labeled_ids": ["4", "5"]}))


WRITERS = {
    "banking77": write_banking77,
    "clinc150": write_clinc150,
    "goemotions": write_goemotions,
    "wrench": write_wrench,
}
MORE = {
    "banking77": {},
    "clinc150": {"variant": "full", "split": "test", "out_of_scope": True},
    "goemotions": {"split": "test"},
    "wrench": {"split": "test"},
}


def read(source, root, **how):
    which = ("own",) if source == "wrench" else ()
    return getattr(sources, source)(*which, data_dir=str(root), **TOKENS | MORE[source] | how)


def test_banking77(tmp_path):
    write_banking77(tmp_path)
    found = read("banking77", tmp_path)
    assert found.class_names == ("pin", "card") and found.train.labels.tolist() == [1, 0, 0]
    assert found.train.inputs.shape == (3, 12) and found.train.inputs.dtype == np.int32
    np.testing.assert_array_equal(found.test.inputs, found.train.inputs[:2])


def test_clinc150(tmp_path):
    write_clinc150(tmp_path)
    found = read("clinc150", tmp_path)
    assert found.class_names == ("a", "b", "oos")
    assert found.train.labels.tolist() == [1, 0, 0, 2] and found.test.labels.tolist() == [1, 0, 2, 2, 2]
    inside = read("clinc150", tmp_path, out_of_scope=False, split="val")
    assert inside.class_names == ("a", "b") and inside.test.labels.tolist() == [0]


def test_goemotions(tmp_path):
    write_goemotions(tmp_path)
    found = read("goemotions", tmp_path)
    assert found.task == "several" and found.class_names == ("joy", "fear", "neutral")
    np.testing.assert_array_equal(found.train.labels, [[1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(found.test.labels, [[0, 1, 0]])
    np.testing.assert_array_equal(read("goemotions", tmp_path, split="dev").test.labels, [[0, 0, 1]])


def test_wrench(tmp_path):
    write_wrench(tmp_path)
    found = read("wrench", tmp_path)
    assert found.class_names == ("ham", "spam") and found.train.labels.tolist() == [0, 1, 0, 1]  # less two
    np.testing.assert_array_equal(found.train.columns["votes"], [[0, -1, 1], [1, -1, 1]] * 2)
    assert found.train.columns["votes"].dtype == np.int8 and found.test.labels.tolist() == [0, 1]
    assert len(read("wrench", tmp_path, split="valid").test.labels) == 1


@pytest.mark.parametrize(
    ("source", "path", "content", "expected"),
    [
        ("banking77", "train.csv", "text,category\nhm,loan\n", "['hm', 'loan']; must be a text and one of the 2"),
        ("banking77", "train.csv", "text,label\nhm,pin\n", "must have the columns text and category, and rows"),
        ("banking77", "test.csv", "text,category\n", "must have the columns text and category, and rows"),
        ("banking77", "test.csv", 'text,category\n"hm"x,pin\n', "line 2: "),
        ("banking77", "categories.json", '["a", "a"]', "must be a list of different names"),
        ("banking77", "categories.json", "{", "is no JSON"),
        ("clinc150", "data_full.json", "[]", "train must be a list of pairs of a text and an intent"),
        ("clinc150", "data_full.json", '{"train": [["a", 1]]}', "train must be a list of pairs"),
        ("goemotions", "train.tsv", "hm\t3\tx\n", "line 1 must be a text, numbers 0 to 2 with commas, an id"),
        ("goemotions", "test.tsv", "hm\t0\n", "line 1 must be a text"),
        ("goemotions", "train.tsv", "", "holds no rows"),
        ("goemotions", "labels.txt", "joy\njoy\n", "must be different names"),
        ("wrench", "own/train.json", '{"0": {"label": 2}}', "row 0 must have data.text, a label of 0 to 1, and weak"),
        ("wrench", "own/train.json", "{}", "holds no rows"),
        ("wrench", "own/label.json", '{"1": "a", "0": "b"}', "must name the classes 0, 1, ... in this order"),
        ("wrench", "own/labeled_ids.json", "[]", "must have labeled_ids, a list of ids"),
        (
            "wrench",
            "own/test.json",
            '{"0": {"label": 0, "weak_labels": [1], "data": {"text": ""}}}',
            "rows of [1] votes; all must have 3",
        ),
    ],
)
def test_damaged_texts_are_named(source, path, content, expected, tmp_path):
    WRITERS[source](tmp_path)
    (tmp_path / path).write_text(content)
    with pytest.raises(ValueError) as error:
        read(source, tmp_path)
    assert expected in str(error.value) and str(tmp_path / path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("source", WRITERS)
def test_missing_texts_are_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such (file|folder)"):
        read(source, tmp_path)


def one_token(texts, tokenizer, vocab_size, max_length):
    """A tokenizer that costs nothing, for what is about the number of texts."""
    return lambda texts: np.ones((len(texts), max_length), np.int32)


REAL = {  # classes; training and test rows
    "banking77": (77, 10_003, 3080, {}),
    "clinc150": (150, 15_000, 4500, {"variant": "full", "split": "test", "out_of_scope": False}),
    "clinc150, small": (151, 7600, 5500, {"variant": "small", "split": "test", "out_of_scope": True}),
    "clinc150, imbalanced": (151, 10_625, 3100, {"variant": "imbalanced", "split": "val", "out_of_scope": True}),
    "goemotions": (28, 43_410, 5427, {"split": "test"}),
    "wrench:youtube": (2, 1586, 250, {"split": "test"}),
    "wrench:sms": (2, 4502, 500, {"split": "test"}),
    "wrench:trec": (6, 4965, 500, {"split": "valid"}),
    "wrench:semeval": (9, 1749, 600, {"split": "test"}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_texts(name, data_root, monkeypatch):
    """Counts as released, and what is said without the data is true of them."""
    monkeypatch.setattr(labelled_texts, "tokenizer_for", one_token)
    classes, rows, tests, more = REAL[name]
    source, _, which = name.partition(",")[0].partition(":")
    how = {"data_dir": real(data_root, source), "vocab_size": 257, "max_length": 4, **more}
    found = getattr(sources, source)(*([which] if which else []), **how)
    assert (found.num_outputs, len(found.train.labels), len(found.test.labels)) == (classes, rows, tests)
    if source == "goemotions":
        assert 1.17 < found.train.labels.sum(1).mean() < 1.18
    else:
        assert set(found.train.labels) == set(range(classes))
    model = {"name": "mean_pool", "width": 4, "dropout": 0.0, "dtype": "float32"}
    config = configs.recipe("supervised") | {"data": {"name": name.partition(",")[0], **how}, "model": model}
    seen = blank.blank_dataset(configs.check(config), None, None, None)
    for ours, theirs in zip(jax.tree.leaves(seen.train[1:]), jax.tree.leaves(found.train[1:]), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert seen.train.inputs.shape == found.train.inputs.shape and seen.train.inputs.dtype == np.int32


def test_votes_of_youtube_are_those_of_the_benchmark(data_root, monkeypatch):
    """Coverage 0.89, and 0.79 of the votes are right."""
    monkeypatch.setattr(labelled_texts, "tokenizer_for", one_token)
    found = sources.wrench("youtube", data_dir=real(data_root, "wrench"), split="test", **TOKENS)
    votes = found.train.columns["votes"]
    assert abs((votes >= 0).any(1).mean() - 0.89) < 5e-3
    assert abs((votes == found.train.labels[:, None])[votes >= 0].mean() - 0.79) < 5e-3


# A run on one's own sentences


def sentences(path, count=120):
    """Two topics, of words of their own among words of both."""
    rng, words = np.random.default_rng(0), {"food": ["soup", "bread", "salt"], "music": ["drum", "song", "choir"]}
    rows = []
    for i in range(count):
        topic = list(words)[i % 2]
        text = " ".join(rng.choice([*words[topic], "the", "a", "is", "good", "today", str(i)], 6))
        rows.append({"text": f"{text} {words[topic][i % 3]}", "topic": topic if i % 10 else None})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    sentences(folder / "own.jsonl")
    data = {"name": f"jsonl:{folder / 'own.jsonl'}", "inputs": ("text",), "labels": ("topic",), "task": "class"}
    config = configs.recipe("own_sentences") | {
        "data": data | TOKENS | {"test": "30%", "test_seed": 0},
        "steps": 30,
        "batch": {"labelled": 16, "unlabelled": 0},
        "devices": 1,
    }
    return labelfx.train(config, folder / "run"), folder / "run"


def test_a_run_on_ones_own_sentences(finished):
    results, workdir = finished
    assert results["metrics"]["head"]["accuracy"] > 0.9 and results["metrics"]["tfidf_probe"]["accuracy"] > 0.9
    encoder = labelfx.load(workdir)
    probabilities = encoder.predict(["The choir and a drum!", "salt, bread, soup"])
    assert [encoder.class_names[i] for i in probabilities.argmax(1)] == ["music", "food"]
    ids = encoder.tokenizer(["The choir and a drum!", "salt, bread, soup"])
    assert ids.shape == (2, 12)
    np.testing.assert_array_equal(encoder(ids), encoder(["The choir and a drum!", "salt, bread, soup"]))
    with pytest.raises(ValueError, match="rows are list"):
        encoder([1, 2])


def test_tokens_are_learnt_from_training_texts_alone(tmp_path):
    read = []
    for other in ("more", "zebra zebra zebra " * 20):
        rows = [{"t": "said and done", "y": "a", "s": "train"}, {"t": "done", "y": "b", "s": "train"}]
        rows.append({"t": other, "y": "a", "s": "test"})
        (tmp_path / "own").write_text("".join(json.dumps(row) + "\n" for row in rows))
        how = {"inputs": ("t",), "labels": ("y",), "task": "class", "test": "s=test", "test_seed": 0}
        read.append(sources.jsonl(str(tmp_path / "own"), **how, **TOKENS))
    np.testing.assert_array_equal(read[0].train.inputs, read[1].train.inputs)
    assert read[0].side["tokenizer"] == read[1].side["tokenizer"]


def test_a_damaged_tokenizer_is_one_line(finished):
    _, workdir = finished
    path = workdir / "tokenizer.json"
    kept = path.read_text()
    try:
        for content in ("{", "", '{"version": "1.0"}', kept[:-20]):
            path.write_text(content)
            with pytest.raises(ConfigError, match=r"tokenizer.json: no tokenizer \(.*\)$"):
                labelfx.load(workdir)
        path.unlink()  # as in runs that kept none
        assert labelfx.load(workdir).tokenizer is None
    finally:
        path.write_text(kept)


def test_a_tokenizer_is_itself_after_it_was_kept():
    found = tokens.learn(["the same words, the same words"], 300, 4)
    texts = ["the words", "sameness", "", "zebra " * 9]
    again = tokens.Tokenizer(str(found.text))
    np.testing.assert_array_equal(again(texts), found(texts))
    assert found(texts).dtype == np.int32 and found(texts).shape == (4, 4)


def test_a_text_encoder_wants_text(tmp_path):
    (tmp_path / "own").write_text("a,kind\n1,x\n2,y\n")
    data = {"name": f"csv:{tmp_path / 'own'}", "vocab_size": 0, "max_length": 0, "inputs": ("a",), "labels": ("kind",)}
    data |= {"task": "class", "test": "", "test_seed": 0}
    config = configs.recipe("own_sentences") | {"data": data, "evals": {}}
    with pytest.raises(ConfigError, match="config.model.name = 'mean_pool': reads text, but 'csv:.*' has none"):
        labelfx.train(config, tmp_path / "run")


# Floors


def loop_tfidf(train, rows):
    """Counts times log((1 + n) / (1 + df)) + 1, of unit length."""
    n, found = len(train), np.zeros((len(rows), max(train.max(), rows.max()) + 1))
    for r, row in enumerate(rows):
        for token in row[row > 0]:
            df = sum(token in other for other in train)
            found[r, token] += np.log((1 + n) / (1 + df)) + 1
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)


def test_tfidf_probe_is_its_loop_form():
    """Multinomial logistic regression at C = 10, minimised by SciPy."""
    rng = np.random.default_rng(0)
    labels, test_labels = (rng.integers(0, 3, n).astype(np.int32) for n in (24, 60))
    rows, test = (
        np.where(rng.random((len(y), 6)) < 0.5, 1 + 2 * y[:, None], rng.integers(0, 9, (len(y), 6))).astype(np.int32)
        for y in (labels, test_labels)
    )
    x, q = loop_tfidf(rows, rows), loop_tfidf(rows, test)

    def loss(flat):
        w, b = flat[:-3].reshape(-1, 3), flat[-3:]
        z = x @ w + b
        z = z - z.max(1, keepdims=True)
        return 0.5 * np.sum(w**2) - 10 * np.sum((z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(24), labels])

    best = scipy.optimize.minimize(loss, np.zeros(3 * x.shape[1] + 3), tol=1e-9).x
    logits = q @ best[:-3].reshape(-1, 3) + best[-3:]
    found = evals.tfidf_probe(rows, labels, test, test_labels, 3)
    assert found["accuracy"] == np.mean(logits.argmax(1) == test_labels) and 0.4 < found["accuracy"] < 1
    assert (found["n"], found["n_labels"]) == (60, 24)


def test_tfidf_probe_without_a_label_of_some_class():
    rows = np.array([[1, 2], [1, 3], [4, 2], [4, 3]], np.int32)
    found = evals.tfidf_probe(rows, np.array([2, 2, 0, 0], np.int32), rows, np.array([2, 2, 0, 1], np.int32), 4)
    assert found["accuracy"] == 0.75


def test_tfidf_of_several_labels():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.4).astype(np.int8)
    rows = np.where(labels, np.arange(1, 4), rng.integers(4, 9, (200, 3))).astype(np.int32)
    said = np.where(rng.random((100, 3)) < 0.5, labels[:100], -1)
    said[:, 2] = np.where(said[:, 2] == 1, -1, said[:, 2])  # never seen
    found = evals.tfidf_multilabel(rows[:100], said, rows[100:], labels[100:], threshold=0.5, k=(1,))
    assert found["CR"] == pytest.approx(2 / 3, abs=0.02) and found["CP"] == pytest.approx(2 / 3, abs=0.02)
    assert found["n_labels"] == np.count_nonzero(said >= 0)
