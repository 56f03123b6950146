"""Text encoders from files: parity with the libraries that they are from, and one clear line for what cannot be read.

`tests/pretrained/make_texts.py` made the files and what is expected of them."""

import json
import math
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from safetensors.numpy import load_file, save_file

import labelfx
from experiments import sentence_encoders
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import sources, tokens
from labelfx.models import pretrained
from labelfx.models.pretrained import bert, static

HERE = Path(__file__).parent / "pretrained"
TEXTS = json.loads((HERE / "texts.json").read_text())["texts"]
STATIC = ("static_int8", "static_float16")
VOCAB = {"bert": 78, "static_int8": 77, "static_float16": 77}
LENGTHS = (6, 16)


def applied(place, ids, outputs="features", dtype=None, **changes):
    """What the encoder in a file makes of ids, some of its architecture changed."""
    found = pretrained.read(place)
    description = found.description | {"architecture": found.description["architecture"] | changes}
    built = pretrained.network(description, norm="stored", norm_groups=1, outputs=outputs, dtype=dtype)
    return np.asarray(built.apply(found.weights(), jnp.asarray(ids), train=False))


def ids_of(folder, length=16):
    return tokens.read(HERE / folder, VOCAB[folder], length)(TEXTS)


def error(found, expected):
    return abs(found - expected).max() / abs(expected).max()


@pytest.fixture(scope="module")
def expected():
    return np.load(HERE / "bert" / "expected.npz")


@pytest.mark.parametrize("length", LENGTHS)
def test_bert_is_that_of_transformers(length, expected):
    ids = ids_of("bert", length)
    np.testing.assert_array_equal(ids, expected[f"ids_{length}"])
    assert error(applied(HERE / "bert", ids), expected[f"mean_{length}"]) < 1e-5
    assert error(applied(HERE / "bert", ids, pooling="cls", normalise=False), expected[f"cls_{length}"]) < 1e-5
    real = (ids > 0)[..., None]
    found = applied(HERE / "bert", ids, "map")
    assert error(np.where(real, found, 0), np.where(real, expected[f"tokens_{length}"], 0)) < 1e-5
    assert not found[ids == 0].any()


BERT_MUTATIONS = {
    "tanh GELU": lambda patch: patch.setattr(bert.nn, "gelu", lambda x, approximate: jax.nn.gelu(x, approximate=True)),
    "padding attended to": lambda patch: patch.setattr(
        bert._Bert,
        "attention",
        lambda self, x, attended, name, own=bert._Bert.attention: own(self, x, attended | True, name),
    ),
    "mean over padding": lambda patch: patch.setattr(bert, "mean_of_tokens", lambda x, tokens, dtype: x.mean(1)),
    "no normalisation": {"normalise": False},
    "epsilon of 1e-5": {"epsilon": 1e-5},
    "the first token": {"pooling": "cls"},
    "two heads": {"heads": 2},
    "the second segment": lambda patch: patch.setattr(
        bert._Bert,
        "embed",
        lambda self, ids, count, kind, own=bert._Bert.embed: own(self, ids + int(kind == "token_type"), count, kind),
    ),
    "positions from the second": lambda patch: patch.setattr(
        bert._Bert,
        "embed",
        lambda self, ids, count, kind, own=bert._Bert.embed: own(self, ids + int(kind == "position"), count, kind),
    ),
}


@pytest.mark.parametrize("mutation", BERT_MUTATIONS)
def test_each_fact_of_bert_shows(mutation, expected, monkeypatch):
    change = BERT_MUTATIONS[mutation]
    if callable(change):
        change(monkeypatch)
    ids = ids_of("bert", 6)
    found = applied(HERE / "bert", ids, **({} if callable(change) else change))
    assert error(found, expected["mean_6"]) > 1e-4


def test_bert_in_loops(expected):
    """A second derivation, in float64: a text alone, without padding, a token and a head at a time."""
    weights = {name: value.astype(np.float64) for name, value in load_file(HERE / "bert" / "model.safetensors").items()}

    def dense(x, name):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def norm(x, name):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-12) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for row, ids in enumerate(ids_of("bert", 6)):
        real = ids[ids > 0]
        x = []
        for place, token in enumerate(real):
            e = "embeddings.{}_embeddings.weight".format
            x.append(weights[e("word")][token] + weights[e("position")][place] + weights[e("token_type")][0])
        x = [norm(each, "embeddings.LayerNorm") for each in x]
        for layer in (f"encoder.layer.{i}" for i in range(2)):
            attention = f"{layer}.attention"
            q, k, v = ([dense(each, f"{attention}.self.{part}") for each in x] for part in ("query", "key", "value"))
            for i in range(len(x)):
                heads = []
                for head in (slice(8 * h, 8 * h + 8) for h in range(4)):
                    scores = np.exp([q[i][head] @ key[head] / np.sqrt(8) for key in k])
                    heads.append(sum(s * value[head] for s, value in zip(scores / scores.sum(), v, strict=True)))
                y = dense(np.concatenate(heads), f"{attention}.output.dense")
                x[i] = norm(x[i] + y, f"{attention}.output.LayerNorm")
                y = dense(x[i], f"{layer}.intermediate.dense")
                y = np.array([each * (1 + math.erf(each / math.sqrt(2))) / 2 for each in y])
                x[i] = norm(x[i] + dense(y, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = np.mean(x, 0)
        assert error(mean / np.linalg.norm(mean), expected["mean_6"][row]) < 1e-5


@pytest.mark.slow
def test_minilm_agrees_with_people_as_published(data_root):
    """STS 2013, as `experiments/sentence_encoders/README.md` has it: MTEB's 80.603 %."""
    folder = Path(os.environ.get("LABELFX_ENCODERS", "encoders")) / "minilm"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: all-MiniLM-L6-v2 with its files (set LABELFX_ENCODERS)")
    model, variables, how = sentence_encoders.encoder(folder)
    data = sources.sts(data_dir=str(data_root / "sts"), **how)
    judged = data.side["judgements"]
    pairs = judged.pairs[judged.task == judged.names.index("2013")]
    left, right = (sentence_encoders.encoded(model, variables, data.test.inputs[side]) for side in pairs.T)
    scores = judged.scores[judged.task == judged.names.index("2013")]
    assert abs(scipy.stats.spearmanr((left * right).sum(1), scores).statistic - 0.80603) < 5e-4


def test_the_experiment_encodes_at_the_length_of_each_text(monkeypatch):
    """Padding changes nothing, and a text without a token is there."""
    model, variables, how = sentence_encoders.encoder(HERE / "bert")
    assert (how["vocab_size"], how["tokenizer"]) == (78, str(HERE / "bert"))
    monkeypatch.setattr(sentence_encoders, "LENGTHS", (4, 8, 16))
    ids = np.concatenate([ids_of("bert"), np.zeros((1, 16), np.int32)])
    found = sentence_encoders.encoded(model, variables, ids)
    assert error(found[:-1], applied(HERE / "bert", ids[:-1])) < 1e-5 and not found[-1].any()


@pytest.mark.slow
def test_the_experiment_fine_tunes_on_the_same_texts(tmp_path, monkeypatch):
    """Two a class, which the encoder of a file tells apart after it: each has the word of its class."""
    for name, value in {"STEPS": {2: 10}, "SEEN": 16, "RATES": {"head/": 0.1, "": 1e-3}}.items():
        monkeypatch.setattr(sentence_encoders, name, value)
    rows = [f"{word} {other},{word}" for word in ("card", "money") for other in range(40)]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    data = {"name": f"csv:{tmp_path / 'own.csv'}", "inputs": ("text",), "labels": ("label",), "task": "class"}
    data |= {"test": "40%", "test_seed": 0, "vocab_size": 78, "tokenizer": str(HERE / "bert")}
    told, train = [], labelfx.train
    monkeypatch.setattr(labelfx, "train", lambda config, folder: told.append(config) or train(config, folder))
    assert sentence_encoders.trained(sentence_encoders.TUNED, data, str(HERE / "bert"), 2, 3) >= 0.75
    assert told[0]["label_seed"] == 3 and told[0]["labels"] == {"name": "per_class", "k": 2}


def test_the_experiments_page_is_of_its_results():
    found = json.loads((sentence_encoders.HERE / "results.json").read_text())
    assert (sentence_encoders.HERE / "README.md").read_text() == sentence_encoders.page(found)
    for year in ("2013", "2014", "2015", "2016"):
        assert abs(100 * found["sts"]["minilm"][year] - sentence_encoders.PUBLISHED[year]) < 0.06
    assert abs(100 * found["sick"]["minilm"]["all"] - sentence_encoders.PUBLISHED["all"]) < 0.06


def test_bert_in_bfloat16_keeps_its_features_float32(expected):
    found = applied(HERE / "bert", ids_of("bert"), dtype=jnp.bfloat16)
    assert found.dtype == np.float32 and 1e-5 < error(found, expected["mean_16"]) < 0.05


@pytest.mark.parametrize("folder", STATIC)
def test_static_embeddings_are_those_of_model2vec(folder):
    """int8 with weights and padding of its own, and float16 whose id 0 is a token."""
    expected = np.load(HERE / folder / "expected.npz")["features"]
    ids = ids_of(folder, 32)
    assert error(applied(HERE / folder, ids), expected) < 1e-5
    assert not applied(HERE / folder, ids)[2].any()  # no token is left of the empty text, and nothing is not a number
    mean = applied(HERE / folder, ids, "map").sum(1)
    assert error(mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-9), expected) < 1e-5


@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        ("static_float16", {"shift": 0}),
        ("static_float16", {"left_out": []}),
        ("static_int8", {"left_out": [2]}),
        ("static_int8", {"left_out": [1]}),
        ("static_int8", {"normalise": False}),
    ],
)
def test_each_fact_of_static_embeddings_shows(folder, changes):
    found = pretrained.read(HERE / folder)
    architecture = found.description["architecture"] | changes
    if "shift" in changes:  # the table stays as it is
        architecture["vocab_size"] -= 1
    built = static.network(**architecture, norm="stored", norm_groups=1, outputs="features", dtype=None)
    features = np.asarray(built.apply(found.weights(), ids_of(folder, 32), train=False))
    assert not error(features, np.load(HERE / folder / "expected.npz")["features"]) < 1e-4  # not a number where beyond


def test_weights_of_tokens_show(tmp_path):
    shutil.copytree(HERE / "static_int8", tmp_path / "own")
    table = load_file(tmp_path / "own" / "model.safetensors")["embeddings"]
    save_file({"embeddings": table}, tmp_path / "own" / "model.safetensors")
    expected = np.load(HERE / "static_int8" / "expected.npz")["features"]
    assert error(applied(tmp_path / "own", ids_of("static_int8", 32)), expected) > 1e-2


def test_wordllama_is_two_files_in_a_folder(tmp_path):
    """A table of another name and no config.json; what the tokenizer does not know counts there."""
    table = load_file(HERE / "static_float16" / "model.safetensors")["embeddings"]
    save_file({"embedding.weight": table}, tmp_path / "model.safetensors")
    shutil.copy(HERE / "static_float16" / "tokenizer.json", tmp_path)
    ids = ids_of("static_float16", 32)
    for row, found in zip(ids[[0, 1, 3]], applied(tmp_path, ids)[[0, 1, 3]], strict=True):
        mean = np.mean([table[id - 1].astype(np.float64) for id in row if id not in (0, 1 + 1)], 0)
        assert error(found, mean / np.linalg.norm(mean)) < 1e-5


def test_a_whole_bert_is_said_of_a_file():
    found = pretrained.read(HERE / "bert")
    assert found.said.startswith("37 of 40 tensors read")
    assert found.description["takes"] == "text" and found.description["architecture"]["pooling"] == "mean"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\ntags:\n- x\n---\n# A\n", "apache-2.0"),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
    ],
)
def test_a_licence_is_what_a_model_card_states(card, licence, tmp_path):
    shutil.copytree(HERE / "bert", tmp_path / "own")
    (tmp_path / "own" / "README.md").write_text(card)
    found = pretrained.read(tmp_path / "own")
    assert found.description["licence"] == licence and found.said.endswith("licence apache-2.0") == bool(licence)


def test_a_bert_for_another_task_is_read(tmp_path, expected):
    shutil.copytree(HERE / "bert", tmp_path / "own")
    kept = load_file(tmp_path / "own" / "model.safetensors")
    kept = {f"bert.{name}": value for name, value in kept.items()} | {"cls.predictions.bias": np.zeros(3, np.float32)}
    save_file(kept, tmp_path / "own" / "model.safetensors")
    assert error(applied(tmp_path / "own", ids_of("bert")), expected["mean_16"]) < 1e-5


# Refusals


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "config.json",
            {"hidden_act": "relu"},
            r"config.json: hidden_act = 'relu'; a BERT that is read here has 'gelu'",
        ),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ("config.json", {"pad_token_id": 1}, "pad_token_id = 1; a BERT that is read here has 0"),
        ("config.json", {"hidden_size": 48}, r"embeddings.LayerNorm.bias.* \[32\].* \[48\]"),
        ("config.json", {"num_hidden_layers": 3}, "has no tensor 'encoder.layer.2.attention.output.LayerNorm.bias'"),
        ("config.json", {"num_hidden_layers": 1}, "tensor 'encoder.layer.1.* has no place in bert"),
        ("config.json", {"model_type": "roberta"}, "roberta is no network that labelfx knows; known families: bert, "),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, r"1_Pooling/config.json: \['pooling_mode_mean_"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": False},
            r"config.json: \[\]; must be one of pooling_mode",
        ),
    ],
)
def test_what_a_bert_must_be(file, changes, message, tmp_path):
    shutil.copytree(HERE / "bert", tmp_path / "own")
    edited(tmp_path / "own" / file, **changes)
    with pytest.raises(ValueError, match=message) as found:
        pretrained.read(tmp_path / "own")
    assert str(tmp_path) in str(found.value) and "\n" not in str(found.value)


def test_modules_that_are_not_read(tmp_path):
    shutil.copytree(HERE / "bert", tmp_path / "own")
    path = tmp_path / "own" / "modules.json"
    modules = json.loads(path.read_text())
    path.write_text(json.dumps([*modules, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ValueError, match="modules.json: Transformer, Pooling, Normalize, Dense; must be Transformer,"):
        pretrained.read(tmp_path / "own")
    path.write_text("{}")
    with pytest.raises(ValueError, match="modules.json: must hold a JSON array"):
        pretrained.read(tmp_path / "own")


def test_tables_that_are_not_read(tmp_path):
    shutil.copytree(HERE / "static_int8", tmp_path / "own")
    path = tmp_path / "own" / "model.safetensors"
    kept = load_file(path)
    save_file(kept | {"mapping": np.arange(77)}, path)
    with pytest.raises(ValueError, match="tokens share the rows of 'embeddings' by 'mapping'"):
        pretrained.read(tmp_path / "own")
    save_file(kept, path)
    (tmp_path / "own" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no tokenizer.json, which says what the rows of 'embeddings' are of"):
        pretrained.read(tmp_path / "own")


def test_ids_that_an_encoder_does_not_take():
    with pytest.raises(TypeError, match=r"token ids, int32 \[B, L\], got float32"):
        applied(HERE / "bert", np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="texts of 17 tokens; this encoder knows 16 positions"):
        applied(HERE / "bert", np.ones((2, 17), np.int32))
    description = pretrained.read(HERE / "bert").description
    pretrained.check_vocabulary(description, 78)
    with pytest.raises(ValueError, match="vocab_size = 79: must be at most 78, the ids that bert knows"):
        pretrained.check_vocabulary(description, 79)
    with pytest.raises(ValueError, match="efficientnet takes images, and not token ids"):
        pretrained.check_vocabulary({"family": "efficientnet", "takes": "images"}, 79)


# Tokenizers


def test_a_tokenizer_from_a_file_is_itself_after_it_was_kept(tmp_path):
    """Padding, length and what is put around a text; id 0 is padding, whatever the file has there."""
    for folder in VOCAB:
        first = tokens.read(HERE / folder, VOCAB[folder], 6)
        (tmp_path / "tokenizer.json").write_text(first.text)
        again = tokens.read(tmp_path / "tokenizer.json", VOCAB[folder], 6)
        assert again == first and first(TEXTS).dtype == np.int32 and first(TEXTS).shape == (5, 6)
    assert first(["[UNK] a"]).tolist() == [[2, 1, 3, 0, 0, 0]]  # [CLS] is 1 there, [UNK] 0, and `a` 2
    ids = tokens.read(HERE / "bert", 78, 6)(["the cat " * 9])
    assert ids[0, 0] == 2 and ids[0, -1] == 3 and (ids > 0).all()


def test_a_tokenizer_that_cannot_be_used_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json: no such file; the tokenizer of a text encoder lies"):
        tokens.read(tmp_path, 78, 6)  # as in the folder of an image encoder
    with pytest.raises(ValueError, match=r"vocab_size = 100: must be 78, as many ids as .*bert.tokenizer.json gives"):
        tokens.read(HERE / "bert", 100, 6)
    with pytest.raises(ValueError, match=r"max_length = 2: must be at least 3; .* puts 2 around a text"):
        tokens.read(HERE / "bert", 78, 2)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json: no tokenizer \("):
        tokens.read(tmp_path, 78, 6)


def test_special_ids_of_other_tokenizers():
    found = tokens.special(
        {"added_tokens": [{"id": 0, "content": "<s>"}], "model": {"vocab": [["<s>", 0.0]], "unk_id": 3}}
    )
    assert found == (1, (), (3,))
    both = {"processors": [{"type": "ByteLevel"}, {"cls": ["[CLS]", 5], "sep": ["[SEP]", 6]}]}
    assert tokens.special({"model": {"vocab": {"a": 0}}, "post_processor": both}) == (1, (5, 6), ())


def test_a_run_keeps_the_tokenizer_of_a_file(tmp_path):
    """Raw sentences go in afterwards, and the file is gone."""
    shutil.copytree(HERE / "bert", tmp_path / "bert")
    rows = [{"text": f"{'the cat sat' if i % 2 else 'dogs run on'} {i}", "y": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"name": f"jsonl:{tmp_path / 'own.jsonl'}", "inputs": ("text",), "labels": ("y",), "task": "class"}
    data |= {"test": "30%", "test_seed": 0, "vocab_size": 78, "max_length": 8, "tokenizer": str(tmp_path / "bert")}
    config = configs.recipe("own_sentences") | {"data": data, "steps": 30, "devices": 1}
    config["batch"] = {"labelled": 8, "unlabelled": 0}
    config["model"] = {
        "name": "pretrained",
        "file": str(tmp_path / "bert"),
        "image_size": 0,
        "frozen": False,
        "lora": None,
        "norm": "stored",
    }
    config["model"] |= {"outputs": "features", "dtype": "float32"}
    for changes, message in (
        (
            {"data": data | {"tokenizer": "", "vocab_size": 300}},
            "vocab_size = 300: must be at most 78, the ids that bert",
        ),
        ({"data": data | {"max_length": 17}}, "texts of 17 tokens; this encoder knows 16 positions"),
    ):
        with pytest.raises(ConfigError, match=message):
            labelfx.train(config | changes, tmp_path / "wrong")
    labelfx.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "bert")
    encoder = labelfx.load(tmp_path / "run")
    ids = encoder.tokenizer(["the cat"])
    assert ids.tolist() == [[2, 5, 6, 3, 0, 0, 0, 0]]
    np.testing.assert_array_equal(encoder(["the cat"]), encoder(ids))
    labelfx.evaluate(tmp_path / "run")  # reads the data again
    with pytest.raises(ConfigError, match=r"config.data: .*bert: no such file; the tokenizer of"):
        labelfx.train(config | {"model": configs.recipe("own_sentences")["model"]}, tmp_path / "another")


def test_numbers_have_no_tokenizer(tmp_path):
    (tmp_path / "own.csv").write_text("a,y\n1,x\n2,z\n")
    how = {"inputs": ("a",), "vocab_size": 0, "max_length": 0, "labels": ("y",), "task": "class", "test": ""}
    with pytest.raises(ValueError, match="tokenizer = 'there': needs vocab_size and max_length"):
        sources.csv(str(tmp_path / "own.csv"), **how, test_seed=0, tokenizer="there")
