"""Text: sources of token ids, encoders, evals by judged pairs, and a run from files to results."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from recipes import recipe, tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Judgements, tokens
from labelfx.data.sources import text
from labelfx.evals import features
from labelfx.evals import text as evals
from labelfx.hardware import blank
from labelfx.models.backbones import mean_pool, transformer

RNG = np.random.default_rng(0)
TOKENS = {"vocab_size": 300, "max_length": 64}


def write_sts(root):
    """Twenty training sentences and, a year, three scored pairs and one that has no score."""
    for year in text.YEARS:
        lines = [f"{score}\ta man sings {year}\tA man  is singing {'loudly ' * score}{year}" for score in range(3)]
        lines += [f"\tunscored left {year}\tunscored right {year}", f"\ta man sings {year}\tunscored other {year}"]
        (root / str(year)).mkdir()
        (root / str(year) / "news.test.tsv").write_text("\n".join(lines) + "\n")
    train = [f'{i / 2}\tthe dog number {i} "runs\tthe cat number {i} sleeps' for i in range(10)]
    (root / "2012" / "news.train.tsv").write_text("\n".join([*train, "1.0\ta man sings 2014\tonly trained on"]))


def write_cranfield(root):
    documents = [
        ".I 1\n.T\nwings in\nflow .\n.A\nbrown\n.B\nj. 1958\n.W\nwings in\nflow .\n  lift of a wing is studied .\n",
        ".I 2\n.T\nheat of slabs\n.A\n.B\n.W\nheat moves\n.A\nslowly\n.W\nin slabs\n",
        ".I 3\n.T\nempty\n.A\n.B\n.W\n",
        ".I 4\n.T\nshock waves\n.A\n.B\n.W\nshock waves in air flow\n",
    ]
    (root / "cran.all.1400").write_text("".join(documents))
    (root / "cran.qry").write_text(".I 001\n.W\nlift of wings\n.I 365\n.W\nheat in a\nslab\n")
    (root / "cranqrel").write_text("1 1 1\n1 4 4\n1 2 -1\n2 2 2 \n")


def test_sts(tmp_path):
    write_sts(tmp_path)
    data = text.sts(data_dir=str(tmp_path), **TOKENS)
    # "a man sings YEAR" is in a test pair; "unscored other" and "only trained on" are not.
    assert data.train.inputs.shape == (20 + 1 + 3 * 5, 64)
    assert data.train.inputs.dtype == np.int32
    assert len(data.test.inputs) == 2 * 15
    assert data.class_names == () and set(data.train.labels) == {-1}
    judged = data.side["judgements"]
    assert judged.names == ("2012", "2013", "2014", "2015", "2016")
    np.testing.assert_array_equal(judged.task, np.repeat(np.arange(5), 3))
    np.testing.assert_array_equal(judged.scores, np.tile([0.0, 1, 2], 5))
    left, right = (data.test.inputs[judged.pairs[:, side]] for side in (0, 1))
    np.testing.assert_array_equal(left[0], left[1])
    assert np.all(np.diff(np.count_nonzero(right[:3], axis=1)) > 0)


def test_tokens_are_the_same_in_every_run_and_of_the_training_text_alone(tmp_path):
    write_sts(tmp_path)
    first, second = (text.sts(data_dir=str(tmp_path), **TOKENS) for _ in range(2))
    np.testing.assert_array_equal(first.test.inputs, second.test.inputs)
    path = tmp_path / "2016" / "news.test.tsv"
    path.write_text(path.read_text() + "5\tzebra zebra zebra zebra\tzebra zebra\n")
    changed = text.sts(data_dir=str(tmp_path), **TOKENS)
    np.testing.assert_array_equal(changed.train.inputs, first.train.inputs)
    zebras = changed.test.inputs[changed.side["judgements"].pairs[-1, 0]]
    assert np.count_nonzero(zebras) > 4  # in pieces, and none of them unknown


def test_long_texts_are_cut_and_short_ones_padded_with_zeros():
    encode = tokens.learn(["the same words, the same words"], 300, 4)
    ids = encode(["the the the the the the", "the", ""])
    assert ids.shape == (3, 4)
    assert len(set(ids[0])) == 1 and ids[0, 0] > 0
    np.testing.assert_array_equal(ids[1:], [[ids[0, 0], 0, 0, 0], [0] * 4])


def test_sick(tmp_path):
    header = "\t".join(text.SICK_HEADER)
    for name, count in (("train", 5), ("trial", 2), ("test_annotated", 3)):
        lines = [f"{i}\t{name} {i}\tA dog\t{i / 2 + 1}\tNEUTRAL" for i in range(count)]
        (tmp_path / f"SICK_{name}.txt").write_text("\n".join([header, *lines]) + "\n")
    for split, count in (("dev", 2), ("test", 3)):
        data = text.sick(data_dir=str(tmp_path), split=split, **TOKENS)
        assert len(data.train.inputs) == 6
        assert data.side["judgements"].names == (split,)
        np.testing.assert_array_equal(data.side["judgements"].scores, np.arange(count) / 2 + 1)


def test_cranfield(tmp_path):
    write_cranfield(tmp_path)
    data = text.cranfield(data_dir=str(tmp_path), rows="documents", **TOKENS)
    assert data.train.inputs.shape == (4, 64) and data.test.inputs.shape == (6, 64)
    judged = data.side["judgements"]
    np.testing.assert_array_equal(data.test.inputs[judged.documents], data.train.inputs)
    np.testing.assert_array_equal(judged.pairs, [[4, 0], [4, 3], [5, 1]])  # queries by place; not the one of code -1
    np.testing.assert_array_equal(judged.scores, [4, 1, 3])
    pairs = text.cranfield(data_dir=str(tmp_path), rows="title_body", **TOKENS)
    assert pairs.train.inputs.shape == (3, 2, 64)
    parts = [text._document(record) for record in text._records(tmp_path / "cran.all.1400")]
    assert parts == [
        ("wings in flow .", "lift of a wing is studied ."),
        ("heat of slabs", "heat moves slowly in slabs"),
        ("empty", ""),
        ("shock waves", "in air flow"),
    ]


@pytest.mark.parametrize(
    ("source", "path", "content", "message"),
    [
        ("sts", "2013/news.test.tsv", "1.0\tone\n", "line 1; must be score TAB sentence TAB sentence"),
        ("sts", "2013/news.test.tsv", "high\tone\ttwo\n", "could not convert string to float"),
        ("sts", "2013/news.test.tsv", b"\xff\xfe", "must be utf-8 text"),
        ("cranfield", "cran.all.1400", "text\n", "must begin with a line .I NUMBER"),
        ("cranfield", "cran.all.1400", ".I 1\n.T\nno body\n", "a document without .T .A .B .W"),
        ("cranfield", "cranqrel", "1 9 1\n", "must be a query, a document and a code"),
    ],
)
def test_damaged_text_is_named(tmp_path, source, path, content, message):
    {"sts": write_sts, "cranfield": write_cranfield}[source](tmp_path)
    (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    more = {"rows": "documents"} if source == "cranfield" else {}
    with pytest.raises(ValueError, match=message):
        getattr(text, source)(data_dir=str(tmp_path), **more, **TOKENS)


def test_missing_text_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no NAME.test.tsv there"):
        text.sts(data_dir=str(tmp_path), **TOKENS)
    with pytest.raises(FileNotFoundError, match=r"SICK_train.txt: no such file"):
        text.sick(data_dir=str(tmp_path), split="test", **TOKENS)
    with pytest.raises(ValueError, match="vocab_size = 100: must be at least 257"):
        tokens.learn(["text"], 100, 4)


def real(data_root, name):
    if not (data_root / name).is_dir():
        pytest.skip(f"no {data_root / name}")
    return str(data_root / name)


def one_token(texts, tokenizer, vocab_size, max_length):
    """An encoder that costs nothing, for what is about the number of texts."""
    return lambda texts: np.ones((len(texts), max_length), np.int32)


def test_real_sts(data_root, monkeypatch):
    """Counts as released: 2,358 scored pairs in 2012 without MSRvid, then 1,500, 3,750, 3,000 and 1,186."""
    monkeypatch.setattr(text, "tokenizer_for", one_token)
    data = text.sts(data_dir=real(data_root, "sts"), vocab_size=257, max_length=4)
    np.testing.assert_array_equal(np.bincount(data.side["judgements"].task), [2358, 1500, 3750, 3000, 1186])
    assert len(data.train.inputs) == blank.TEXTS["sts"][1]
    assert 0 <= data.side["judgements"].scores.min() and data.side["judgements"].scores.max() == 5


def test_real_sick(data_root):
    data = text.sick(data_dir=real(data_root, "sick2014"), split="test", vocab_size=2048, max_length=32)
    assert len(data.train.inputs) == blank.TEXTS["sick"][1]
    assert len(data.side["judgements"].scores) == 4927
    found = evals.tfidf(data.train.inputs, data.test.inputs, data.side["judgements"], measure="spearman")
    assert 0.5 < found["value"] < 0.65


def test_all_pairs_of_sick_are_those_of_mteb(data_root, monkeypatch):
    monkeypatch.setattr(text, "tokenizer_for", one_token)
    data = text.sick(data_dir=real(data_root, "sick2014"), split="all", vocab_size=257, max_length=4)
    assert len(data.side["judgements"].scores) == 4500 + 500 + 4927 and len(data.test.inputs) == 2 * 9927
    assert data.side["judgements"].names == ("all",) and len(data.train.inputs) == blank.TEXTS["sick"][1]


def test_real_cranfield(data_root, monkeypatch):
    monkeypatch.setattr(text, "tokenizer_for", one_token)
    data = text.cranfield(data_dir=real(data_root, "cranfield"), rows="documents", vocab_size=257, max_length=4)
    assert len(data.train.inputs) == blank.TEXTS["cranfield"][1]
    assert len(data.side["judgements"].scores) == 1837 - 225
    assert len(np.unique(data.side["judgements"].pairs[:, 0])) == 225
    pairs = text.cranfield(data_dir=str(data_root / "cranfield"), rows="title_body", vocab_size=257, max_length=4)
    assert len(pairs.train.inputs) == 1398


def sentences(count, length, vocabulary):
    """Token ids with padding at the end, of 1 to `length` tokens."""
    ids = RNG.integers(1, vocabulary, (count, length)).astype(np.int32)
    return np.where(np.arange(length) < RNG.integers(1, length + 1, (count, 1)), ids, 0)


def compiled(model):
    """`init` and the outputs of `apply`, compiled."""
    apply = jax.jit(lambda v, x, train=False, rng=None: model.apply(v, x, train=train, rng=rng)[0], static_argnums=2)
    return jax.jit(model.init), apply


def test_mean_pool_is_the_mean_of_the_embeddings():
    ids = sentences(6, 7, 11)
    init, apply = compiled(mean_pool(11, width=5, dropout=0.5, dtype="float32"))
    variables = init(jax.random.key(0), ids[:1])
    found = apply(variables, ids)
    table = np.float64(variables["params"]["embedding"])
    expected = [sum(table[i] for i in row if i) / np.count_nonzero(row) for row in ids]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(apply(variables, ids[:, ::-1]), found, rtol=1e-5, atol=1e-7)


def test_a_transformer_reads_order_but_no_padding():
    ids = sentences(3, 7, 11)
    ids[0], ids[1:] = np.arange(1, 8), np.where(np.arange(7) < 4, ids[1:] + 1, 0)
    init, apply = compiled(transformer(13, layers=2, width=8, heads=2, dropout=0.5, dtype="float32"))
    variables = init(jax.random.key(0), ids[:1])
    variables["params"]["positions"] *= 50
    found = apply(variables, ids)
    short = {"params": variables["params"] | {"positions": variables["params"]["positions"][:4]}}
    np.testing.assert_allclose(found[1:], apply(short, ids[1:, :4]), rtol=1e-4, atol=1e-5)
    turned = apply(variables, np.roll(ids, 1, axis=1))
    assert np.abs(turned[0] - found[0]).max() > 1e-3
    with pytest.raises(ValueError, match="heads = 3: must divide width = 8"):
        transformer(11, layers=1, width=8, heads=3, dropout=0.0, dtype="float32")


ENCODERS = {
    "mean_pool": lambda dtype: mean_pool(11, width=8, dropout=0.5, dtype=dtype),
    "transformer": lambda dtype: transformer(11, layers=1, width=8, heads=2, dropout=0.5, dtype=dtype),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_at_their_edges(name):
    """Each row has a dropout mask of its own; a text without tokens is finite, and so is its gradient."""
    model, same = ENCODERS[name]("float32"), np.array([[1, 2, 3]] * 2 + [[0, 0, 0]], np.int32)
    init, apply = compiled(model)
    variables = init(jax.random.key(0), same[:1])
    views = apply(variables, same, True, jax.random.key(1))
    assert views.dtype == np.float32
    assert np.abs(views[0] - views[1]).max() > 1e-3 * np.abs(views).max()
    differentiate = jax.jit(jax.grad(lambda v: (jnp.sum((x := apply(v, same))[:, 0]), x), has_aux=True))
    gradient, plain = differentiate(variables)
    np.testing.assert_array_equal(plain[0], plain[1])
    np.testing.assert_array_equal(plain[2], 0)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    narrow = jax.eval_shape(compiled(ENCODERS[name]("bfloat16"))[1], variables, same)
    assert narrow.dtype == np.float32
    with jax.enable_x64(True):
        assert jax.eval_shape(apply, jax.tree.map(np.float64, variables), same).dtype == np.float64
    with pytest.raises(TypeError, match="text encoders take token ids, int32 .B, L., got float32"):
        model.apply(variables, np.float32(same), train=False)


def judgements(pairs, scores, task=None, names=("all",), documents=0):
    task = np.zeros(len(pairs), np.int64) if task is None else task
    return Judgements(np.array(pairs), np.array(scores, float), task, names, np.arange(documents))


def test_spearman_is_the_correlation_of_ranks_by_task():
    x, pairs, scores = RNG.normal(size=(20, 3)).astype(np.float32), RNG.integers(0, 20, (30, 2)), RNG.integers(0, 6, 30)
    task = np.arange(30) % 2
    found = evals.spearman(x, judgements(pairs, scores, task, ("even", "odd")))
    for number, name in enumerate(("even", "odd")):
        rows = np.flatnonzero(task == number)
        cosine = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i, j in pairs[rows]]
        ranks = [scipy.stats.rankdata(values) for values in (np.round(cosine, 5), scores[rows])]
        assert found[name] == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-9)
    assert found["value"] == pytest.approx((found["even"] + found["odd"]) / 2)
    assert found["n"] == 30


def test_retrieval_is_its_loop_form():
    """150 documents, 4 queries; a query has 1 to 20 relevant ones, one of them more than can be among the first 10."""
    x = RNG.normal(size=(154, 6)).astype(np.float32)
    relevant = {150 + q: RNG.choice(150, size, replace=False) for q, size in enumerate((1, 3, 12, 20))}
    judged = [(q, d, 1 + int(RNG.integers(4))) for q, documents in relevant.items() for d in documents]
    found = evals.retrieval(x, judgements([j[:2] for j in judged], [j[2] for j in judged], documents=150))
    unit = np.float64(x) / np.linalg.norm(x, axis=1, keepdims=True)
    ndcg, recall = [], {10: [], 100: []}
    for query in relevant:
        gains = {d: g for q, d, g in judged if q == query}
        order = sorted(range(150), key=lambda d, query=query: -unit[query] @ unit[d])
        dcg = sum(gains.get(d, 0) / math.log2(rank + 2) for rank, d in enumerate(order[:10]))
        ideal = sum(g / math.log2(rank + 2) for rank, g in enumerate(sorted(gains.values(), reverse=True)[:10]))
        ndcg.append(dcg / ideal)
        for k in recall:
            recall[k].append(len(gains.keys() & set(order[:k])) / len(gains))
    assert found["value"] == pytest.approx(np.mean(ndcg))
    assert found["recall_10"] == pytest.approx(np.mean(recall[10]))
    assert found["recall_100"] == pytest.approx(np.mean(recall[100]))
    assert found["n"] == 4


def test_tfidf_is_its_loop_form():
    train, test = sentences(12, 5, 7), sentences(20, 5, 9)
    pairs = np.transpose(np.triu_indices(20, 1))[::3]
    scores = RNG.integers(0, 6, len(pairs))

    def vector(row):
        idf = [math.log((1 + 12) / (1 + sum(token in r for r in train))) + 1 for token in range(9)]
        x = np.array([np.count_nonzero(row == token) * idf[token] if token else 0 for token in range(9)])
        return x / np.linalg.norm(x)

    expected = scipy.stats.spearmanr([vector(test[i]) @ vector(test[j]) for i, j in pairs], scores).statistic
    found = evals.tfidf(train, test, judgements(pairs, scores), measure="spearman")
    assert found["value"] == pytest.approx(expected, abs=1e-3)  # rounding breaks ties
    found = evals.tfidf(train, test, judgements(pairs, scores + 1, documents=20), measure="retrieval")
    assert found["recall_100"] == 1 and 0 < found["value"] < 1


def test_untrained_is_the_encoder_at_its_seed():
    model, test = ENCODERS["mean_pool"]("float32"), sentences(6, 5, 11)
    judged = judgements([(0, 1), (2, 3), (4, 5), (0, 3)], [1, 2, 3, 4])
    x = features(model, model.init(jax.random.key(3), test[:1]), test)
    assert evals.untrained(model, 3, test, judged, measure="spearman") == evals.spearman(x, judged)


def small(root, **changes):
    """The recipe of SimCSE on a tiny set, for a few steps."""
    config = recipe("simcse") | {"data": {"name": "sts", "data_dir": str(root), **TOKENS}, "steps": 4, "log_every": 2}
    config |= {"model": {"name": "mean_pool", "width": 8, "dropout": 0.5, "dtype": "float32"}, "devices": 1}
    config["optimizer"]["schedule"]["warmup_steps"] = 1
    return config | {"batch": {"labelled": 0, "unlabelled": 16}} | changes


def test_a_run_from_files_to_results(tmp_path):
    write_sts(tmp_path)
    config = small(tmp_path)
    config["data"]["placement"] = "device"  # token ids, where images are bytes
    found = labelfx.train(config, tmp_path / "run")
    assert found["labels"]["n"] == 0
    assert found["metrics"]["spearman"]["n"] == 15
    assert {"tfidf", "untrained"} <= found["metrics"].keys()
    assert labelfx.evaluate(tmp_path / "run")["metrics"] == found["metrics"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": {"labelled": 16, "unlabelled": 0}}, "config.batch.labelled = 16: must be 0 where"),
        ({"labels": {"name": "all_labels"}}, "no training row has a label"),
        ({"evals": {"knn": {"k": 1, "temperature": 0.1}}}, "config.evals.knn: 'sts' has no classes"),
        ({"model": {"name": "conv3", "width": 2, "dtype": "float32"}}, "config.method: .*float images in .0, 1."),
    ],
)
def test_what_text_cannot_do(tmp_path, changes, message):
    write_sts(tmp_path)
    with pytest.raises(ConfigError, match=message):
        labelfx.train(small(tmp_path, **changes), tmp_path / "run")


def test_what_images_cannot_do(tmp_path):
    with pytest.raises(ConfigError, match="config.evals.spearman: 'digits' has no judged pairs of texts"):
        labelfx.train(tiny("supervised", evals={"spearman": {}}), tmp_path)
    with pytest.raises(ConfigError, match="config.model.name = 'mean_pool': reads text, but 'digits' has none"):
        labelfx.train(tiny("supervised", model=small(tmp_path)["model"]), tmp_path)


@pytest.mark.parametrize(("rows", "shape"), [("documents", (1400, 9)), ("title_body", (1398, 2, 9))])
def test_a_plan_knows_the_shapes_of_text(rows, shape):
    config = recipe("cranfield")
    config["data"] |= {"rows": rows, "max_length": 9}
    found = blank.blank_dataset(configs.check(config), None, None, None)
    assert (found.train.inputs.shape, found.train.inputs.dtype) == (shape, np.int32)
    assert found.class_names == ()
