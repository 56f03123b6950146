"""Self-training on the agreement of several runs: their votes, and what is learnt of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import recipe, tiny
from test_pretrained_runs import FROZEN

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data.sources.images import digits
from labelfx.evals.kept import kept_in
from labelfx.labels.recorded import read
from labelfx.objectives.classification import vote_cross_entropy


def test_the_loss_of_votes_is_that_of_their_shares_by_loops():
    rng = np.random.default_rng(0)
    logits, votes = rng.normal(size=(6, 4)), rng.integers(-1, 4, (6, 3))
    weight = np.array([1.0, 0.5, 0.0, 2.0, 1.0, 1.0])
    votes[1] = -1
    for weights in (None, weight):
        total, gradient, count = 0.0, np.zeros_like(logits), 0
        for i, row in enumerate(logits):
            cast = [each for each in votes[i] if each >= 0]
            factor = 1.0 if weights is None else weights[i]
            if not cast or factor == 0:
                continue
            count += 1
            p = np.exp(row) / np.exp(row).sum()
            for each in cast:
                total -= factor * np.log(p[each]) / len(cast)
                gradient[i] += factor * (p - np.eye(4)[each]) / len(cast)
        with jax.enable_x64(True):
            given = [jnp.asarray(each) for each in (logits, votes)] + (
                [] if weights is None else [jnp.asarray(weights)]
            )
            value, slope = jax.value_and_grad(vote_cross_entropy)(*given)
        np.testing.assert_allclose(value, total / count, rtol=1e-12)
        np.testing.assert_allclose(slope, gradient / count, rtol=1e-12)
    assert vote_cross_entropy(jnp.ones((2, 3)), jnp.full((2, 2), -1)) == 0
    with pytest.raises(ValueError, match=r"logits must be \[B, C\] and votes \[B, M\], got \(2, 3\), \(2,\)"):
        vote_cross_entropy(jnp.ones((2, 3)), jnp.zeros(2, int))


@pytest.fixture(scope="module")
def weak(tmp_path_factory):
    """Heads on three random encoders, told the same labels."""
    folder = tmp_path_factory.mktemp("weak")
    head = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "clip_norm": None}
    head |= {"accumulate": 1, "schedule": {"name": "cosine", "warmup_steps": 0}}
    optimizer = {"name": "by_path", "paths": ("backbone/", ""), "optimizers": ({"name": "frozen"}, head)}
    for seed in range(3):
        config = tiny("supervised", optimizer=optimizer, steps=200, seed=seed, labels={"name": "per_class", "k": 10})
        config["model"] = {"name": "mlp", "hidden": (32,), "dtype": "float32"}
        config["method"]["augment"] = {"name": "identity"}
        labelfx.train(config | {"save_every": 200, "log_every": 200}, folder / f"{seed}")
    return folder


def test_three_weak_encoders_agree_where_they_are_right(weak, tmp_path, capsys):
    votes = labelfx.vote([weak / f"{seed}" for seed in range(3)], tmp_path / "votes.npz")
    truth = digits().train.labels
    by_judge = votes.vote.reshape(3, -1)
    assert f"3 runs, {len(truth):,} rows; on" in capsys.readouterr().out
    alike = (by_judge == by_judge[0]).all(0)
    counts = np.eye(10)[by_judge].sum(0)
    own = (by_judge == truth).mean(1)
    assert (counts.argmax(1) == truth).mean() > own.max() + 0.015
    assert (by_judge[0] == truth)[alike].mean() > own.max() + 0.1
    read_again = read(tmp_path / "votes.npz", len(truth), 10)
    np.testing.assert_array_equal(read_again.vote, votes.vote)


def test_a_run_told_a_label_names_it_and_the_student_beats_its_teachers(weak, tmp_path):
    folders = [weak / f"{seed}" for seed in range(3)]
    labelfx.vote(folders, tmp_path / "votes.npz")
    config = recipe("self_training") | {"steps": 150, "devices": 1, "model": {"name": "mlp", "hidden": (64,)}}
    config["model"]["dtype"], config["optimizer"]["learning_rate"] = "float32", 1e-2
    config["labels"]["weak"]["path"] = str(tmp_path / "votes.npz")
    config["method"]["augment"] = {"name": "identity"}
    student = labelfx.train(config, tmp_path / "student")
    teachers = [
        np.mean(labelfx.load(folder).predict(digits().test.inputs).argmax(1) == digits().test.labels)
        for folder in folders
    ]
    assert student["metrics"]["head"]["accuracy"] > max(teachers) + 0.03


def test_a_frozen_encoder_votes_by_its_kept_features(tmp_path):
    with kept_in(tmp_path):
        labelfx.train(tiny("frozen", model=FROZEN, steps=20), tmp_path / "run")
        votes = labelfx.vote([tmp_path / "run"], tmp_path / "votes.npz")
    train = digits().train
    named = labelfx.load(tmp_path / "run").predict(train.inputs).argmax(1)
    rows = np.flatnonzero(named != votes.vote)
    assert len(rows) and (train.labels[rows] == votes.vote[rows]).all()  # told


def test_runs_that_read_texts_in_their_own_tokens_vote(tmp_path):
    rows = [{"text": f"{'the cat sat' if i % 2 else 'dogs run on'} {i}", "y": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"name": f"jsonl:{tmp_path / 'own.jsonl'}", "inputs": ("text",), "labels": ("y",), "task": "class"}
    data |= {"test": "30%", "test_seed": 0, "max_length": 8}
    for size in (280, 300):
        config = configs.recipe("own_sentences") | {"data": data | {"vocab_size": size}, "steps": 25, "devices": 1}
        config |= {"batch": {"labelled": 8, "unlabelled": 0}, "labels": {"name": "per_class", "k": 2}, "evals": {}}
        labelfx.train(config, tmp_path / f"{size}")
    votes = labelfx.vote([tmp_path / "280", tmp_path / "300"], tmp_path / "votes.npz")
    assert votes.judge.max() == 1 and len(votes.vote) == 2 * (votes.row.max() + 1)


def test_what_cannot_vote_is_said_in_a_line(weak, tmp_path):
    out = tmp_path / "votes.npz"
    with pytest.raises(ConfigError, match="no workdirs"):
        labelfx.vote([], out)
    with pytest.raises(ConfigError, match=r"--out=.*votes.csv: must end in .npz"):
        labelfx.vote([weak / "0"], tmp_path / "votes.csv")
    labelfx.train(tiny("simclr", steps=0), tmp_path / "simclr")
    with pytest.raises(ConfigError, match=r"simclr: trained no classifier that names one class a row"):
        labelfx.vote([weak / "0", tmp_path / "simclr"], out)
    merged = {"name": "digits", "merge": ((0, 1), (2, 3), (4, 5, 6, 7, 8, 9))}
    labelfx.train(tiny("supervised", data=merged, steps=0), tmp_path / "merged")
    with pytest.raises(ConfigError, match=r"merged: other training rows or classes than .*/0"):
        labelfx.vote([weak / "0", tmp_path / "merged"], out)
    assert not out.exists()
