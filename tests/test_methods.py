"""What each method does in a step, against a second derivation in NumPy where the order of operations is the method."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import tiny
from toys import with_head

import labelfx
from labelfx import objectives
from labelfx.config import ConfigError
from labelfx.data import Split
from labelfx.finished import weights
from labelfx.labels.rules import percentile as keep
from labelfx.loop import dispatch, metrics, training
from labelfx.loop.training import Loop
from labelfx.methods.from_labels.finetune import finetune
from labelfx.methods.from_labels.metric_learning import draw_mix, metric_learning
from labelfx.methods.from_labels.supervised import supervised
from labelfx.methods.from_labels.supervised_contrastive import class_scores
from labelfx.methods.self_supervised.contrastive import same_class
from labelfx.methods.self_supervised.feature_transform import draw, feature_transform
from labelfx.methods.self_supervised.moco import moco
from labelfx.methods.semi_supervised.relabelling import relabelling
from labelfx.models import Model
from labelfx.objectives import classification

PLAIN = functools.partial(classification.cross_entropy, label_smoothing=0.0)

train = importlib.import_module("labelfx.train")


def affine(name, width):
    """A linear network with one named kernel."""

    def init(rng, x):
        return {"params": {name: jax.random.normal(rng, (x.reshape(len(x), -1).shape[1], width))}}

    return Model(init, lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1) @ variables["params"][name], {}))


def identity(rng, images):
    return images


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("transform", [None, dict(positive_alpha=2.0, negative_alpha=1.6)])
def test_moco_order_of_a_step(transform):
    """EMA of the key encoder first, keys by it, loss against the old queue, enqueue, then the descent of the query.

    Feature transformation changes the scores of the loss alone: neither the metrics nor what is enqueued.
    """
    rng = np.random.default_rng(0)
    tx = optax.sgd(0.5)
    settings = dict(augment=identity, temperature=0.3, momentum=0.9, queue_size=8, **(transform or {}))
    method = (feature_transform if transform else moco)(affine("w", 5), tx, projector=affine("v", 3), **settings)
    batch = {"unlabelled": {"input": rng.random((4, 2, 2, 1), np.float32)}}
    state = method.init(jax.random.key(0), batch)
    # A query that has moved on from its keys, as after some training.
    moved = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape).astype(np.float32), state.query.params)
    state = state._replace(query=state.query._replace(params=moved))
    queue, oldest = np.asarray(state.queue, np.float64), 0
    np.testing.assert_allclose(np.linalg.norm(queue, axis=-1), 1, rtol=1e-6)
    key_params = jax.tree.map(lambda p: np.asarray(p, np.float64), state.key_params)

    for _ in range(3):
        x = rng.random((4, 2, 2, 1), np.float32)
        query_params = jax.tree.map(lambda p: np.asarray(p, np.float64), state.query.params)
        key_params = jax.tree.map(lambda k, q: 0.9 * k + 0.1 * q, key_params, query_params)
        flat = x.reshape(4, -1).astype(np.float64)
        key = normalised(flat @ key_params["backbone"]["w"] @ key_params["projector"]["v"])
        query = normalised(flat @ query_params["backbone"]["w"] @ query_params["projector"]["v"])
        logits = np.concatenate([np.sum(query * key, -1, keepdims=True), query @ queue.T], 1) / 0.3
        scores = logits
        if transform:
            mix = draw(jax.random.key(1), jnp.asarray(queue, jnp.float32), **transform)
            far, near, order = (np.asarray(mix[name]) for name in ("positive_lambda", "negative_lambda", "permutation"))
            assert 1 < far < 2 and 0 < near < 1 and sorted(order) == list(range(8))
            q, k = far * query + (1 - far) * key, far * key + (1 - far) * query
            mixed = near * queue + (1 - near) * queue[order]
            scores = np.concatenate([np.sum(q * k, -1, keepdims=True), q @ mixed.T], 1) / 0.3
        loss = np.mean(np.log(np.exp(scores).sum(1)) - scores[:, 0])
        queue[oldest : oldest + 4] = key
        oldest = (oldest + 4) % 8

        state, metrics = jax.jit(method.step)(state, {"unlabelled": {"input": x}}, jax.random.key(1))
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["accuracy"], np.mean(logits[:, 0] > logits[:, 1:].max(1)))
        np.testing.assert_allclose(state.queue, queue, atol=1e-5)
        assert int(state.oldest) == oldest
        for mine, theirs in zip(jax.tree.leaves(key_params), jax.tree.leaves(state.key_params), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        changed = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), query_params, state.query.params)
        assert min(jax.tree.leaves(changed)) > 1e-4


def test_class_scores_are_means_over_pairs():
    z, labels = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32), np.array([0, 1, 0, 3, 1, 0, 4])
    unit = normalised(z.astype(np.float64))
    pairs = [(unit[i] @ unit[j], labels[i] == labels[j]) for i in range(7) for j in range(7) if i != j]
    found = class_scores(jnp.asarray(z), jnp.asarray(labels), 5)
    np.testing.assert_allclose(found["positive_score"], np.mean([s for s, same in pairs if same]), rtol=1e-5)
    np.testing.assert_allclose(found["negative_score"], np.mean([s for s, same in pairs if not same]), rtol=1e-5)
    np.testing.assert_allclose(found["embedding_std"], unit.std(axis=0).mean(), rtol=1e-5)
    alone = class_scores(jnp.asarray(z[:1]), jnp.asarray(labels[:1]), 5)
    assert not np.any(np.round(list(alone.values()), 6))


def test_mixed_pairs_are_of_the_anchors_class_and_of_others():
    """Every row of each kind is drawn equally often; an anchor without one of a kind draws any."""
    label = np.array([0, 1, 0, 2, 1, 0])
    positive = jnp.asarray(np.arange(4)[:, None] == label[None])  # the last has no positives
    pairs, share = jax.jit(draw_mix, static_argnums=2)(jax.random.key(0), positive, 6000)
    for anchor, kept in enumerate(np.asarray(positive)):
        for rows, allowed in zip(np.asarray(pairs)[anchor].T, (kept if kept.any() else ~kept, ~kept), strict=True):
            assert np.abs(np.bincount(rows, minlength=6) / 6000 - allowed / allowed.sum()).max() < 0.03
    moments = np.mean(share), np.var(share)
    np.testing.assert_allclose(moments, (1 / 2, 1 / 20), atol=3e-3)  # of Beta(2, 2)


def test_proxies_and_mixing_are_in_the_loss():
    """loss = clean + 0.4 mixed, and one step moves the proxies by their gradient."""
    rng = np.random.default_rng(1)
    image, label = rng.random((6, 2, 2, 1), np.float32), np.array([0, 1, 0, 2, 1, 0])
    settings = dict(alpha=8.0, margin=0.1)
    method = metric_learning(
        affine("w", 5),
        optax.sgd(0.5),
        4,
        augment=identity,
        projector=affine("v", 3),
        objective=functools.partial(objectives.proxy_anchor, **settings),
        mixed_per_anchor=3,
        mix_weight=0.4,
    )
    batch = {"labelled": {"input": image, "label": label}}
    state = method.init(jax.random.key(0), batch)
    params = state.params
    np.testing.assert_allclose(np.linalg.norm(params["proxies"], axis=1), 1, rtol=1e-6)
    assert params["proxies"].shape == (4, 3)
    key = jax.random.key(2)
    positive = jnp.arange(4)[:, None] == label[None]
    mix = draw_mix(key, positive, 3)

    z = jnp.asarray(normalised(image.reshape(6, -1) @ params["backbone"]["w"] @ params["projector"]["v"]))

    def loss(proxies):
        mixed = objectives.mixed_proxy_anchor(proxies, *objectives.metric_mix(z, positive, *mix), **settings)
        return objectives.proxy_anchor(z, label, proxies, **settings) + 0.4 * mixed, mixed

    (expected, mixed), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params["proxies"])
    after, metrics = jax.jit(method.step)(state, batch, key)
    np.testing.assert_allclose((metrics["loss"], metrics["mixed_loss"]), (expected, mixed), rtol=1e-5)
    np.testing.assert_allclose(after.params["proxies"], params["proxies"] - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_what_has_no_mixed_form_says_so(tmp_path):
    config = tiny("metric_learning")
    config["method"]["objective"] = {"name": "proxy_nca", "temperature": 0.1, "normaliser": "all"}
    with pytest.raises(ConfigError, match="config.method: mixed_per_anchor = 16: must be 0, proxy_nca mixes nothing"):
        labelfx.train(config, tmp_path)
    config["method"]["objective"] = {"name": "sup_con", "temperature": 0.1}
    with pytest.raises(ConfigError, match="objective.name = 'sup_con': .*allowed: multi_similarity, proxy_anchor, pr"):
        labelfx.train(config, tmp_path)


def test_moco_queue_must_hold_whole_batches(tmp_path):
    config = tiny("moco")
    config["method"]["queue_size"] = 40
    with pytest.raises(
        ConfigError, match="config.method: queue_size = 40: must be a multiple of batch.unlabelled = 16"
    ):
        labelfx.train(config, tmp_path)


@pytest.mark.parametrize(("percentile", "kept"), [(100.0, 0), (80.0, 2), (50.0, 4), (0.0, 8)])
def test_curriculum_keeps_the_confident(percentile, kept):
    """Of 8 hidden rows; the labelled ones keep the label they were given, right or wrong."""
    kernel = jnp.asarray([[1.0, -1.0]])
    images = np.array([3, 40, 90, 100, 120, 150, 160, 200, 220, 255], np.uint8).reshape(10, 1, 1, 1)
    labels = np.full(10, -1, np.int32)
    labels[[4, 9]] = 1
    rule = functools.partial(keep, percentile=percentile)
    method = relabelling(with_head(affine("w", 1), 2), optax.sgd(0.1), augment=identity, objective=PLAIN, rule=rule)
    state = method.init(jax.random.key(0), {"unlabelled": {"input": images}})
    params = {
        "backbone": {"w": jnp.ones((1, 1))},
        "head": {"Dense_0": {"kernel": kernel, "bias": jnp.asarray([-0.5, 0.5])}},
    }
    assert jax.tree.structure(params) == jax.tree.structure(state.params)
    table = method.refresh(state._replace(params=params).variables, Split(images, labels), jax.random.key(0), 0.0)
    score = images[:, 0, 0, 0] / 255 - 0.5  # of class 0; its distance from 0 is the confidence
    hidden = np.setdiff1d(np.arange(10), [4, 9])
    expected = set(hidden[np.argsort(-np.abs(score[hidden]))][:kept]) | {4, 9}
    assert set(np.flatnonzero(table["include"])) == expected
    np.testing.assert_array_equal(table["pinned"], labels >= 0)
    chosen = np.array(sorted(expected - {4, 9}), int)
    np.testing.assert_array_equal(table["label"][chosen], score[chosen] < 0)
    assert table["label"][[4, 9]].tolist() == [1, 1]


def test_curriculum_rounds_start_from_fresh_parameters_and_their_predecessors_labels(tmp_path, monkeypatch):
    seen, enter = [], Loop.enter

    def record(self, index):
        enter(self, index)
        seen.append((flat(self.state.params), self.table["include"].sum()))

    monkeypatch.setattr(Loop, "enter", record)
    labelfx.train(tiny("curriculum_labeling"), tmp_path)
    (first, labels), (second, more), (_, most) = seen
    assert labels == 20 and labels < more < most
    assert not np.allclose(first, second, atol=0.1)
    trained = flat(weights.load(tmp_path / "weights" / "0.safetensors")["params"])
    assert not np.allclose(trained, first, atol=1e-3) and not np.allclose(trained, second, atol=0.1)


def test_finetune_starts_from_the_backbone(tmp_path, monkeypatch):
    labelfx.train(tiny("simclr"), tmp_path / "pretrained")
    before = weights.load(tmp_path / "pretrained" / "weights" / "0.safetensors")

    def stop(self):
        raise KeyboardInterrupt(self.state)

    monkeypatch.setattr(Loop, "run", stop)
    config = tiny("finetune", backbone=str(tmp_path / "pretrained"))
    with pytest.raises(KeyboardInterrupt) as stopped:
        labelfx.train(config, tmp_path / "tuned")
    state = stopped.value.args[0]
    for mine, theirs in [
        (state.params["backbone"], before["params"]["backbone"]),
        (state.model_state["batch_stats"]["backbone"], before["batch_stats"]["backbone"]),
    ]:
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert set(state.params) == {"backbone", "head"}
    wider = config | {"model": {"name": "conv3", "width": 3, "dtype": "float32"}}
    with pytest.raises(ConfigError, match="the backbone's parameters are not those of config.model"):
        labelfx.train(wider, tmp_path / "wider")
    with pytest.raises(ConfigError, match="^config.backbone = '.*nowhere': .*: no config.json there; give the work"):
        labelfx.train(config | {"backbone": str(tmp_path / "nowhere")}, tmp_path / "lost")


def test_finetune_may_keep_the_head():
    batch = {"labelled": {"input": np.ones((4, 2, 2, 1), np.float32)}}
    settings = {"augment": identity, "objective": PLAIN}
    network, tx = with_head(affine("w", 5), 3), optax.sgd(0.1)
    trained = supervised(network, tx, **settings).init(jax.random.key(1), batch).variables
    starts = {
        head: finetune(network, tx, trained, head=head, **settings).init(jax.random.key(2), batch)
        for head in ("fresh", "kept")
    }
    jax.tree.map(np.testing.assert_array_equal, starts["kept"].variables, trained)
    assert not np.array_equal(flat(starts["fresh"].params["head"]), flat(trained["params"]["head"]))
    with pytest.raises(ValueError, match="head = 'kept': the run that it starts from has trained no classifier"):
        finetune(network, tx, {"params": {"backbone": {}}}, head="kept", **settings)


def test_one_run_may_pretrain_and_then_fine_tune(tmp_path, monkeypatch):
    config = tiny("simclr", evals={"head": {}, "linear_probe": {}})
    tuned = tiny("finetune")
    changes = {key: tuned[key] for key in ("method", "batch", "steps", "optimizer")}
    labelfx.train(config | {"phases": ({}, changes | {"backbone": "previous"})}, tmp_path / "both")
    # The same in two runs, the second counting its steps from where the first ended.
    labelfx.train(config | {"evals": {}}, tmp_path / "first")
    first, both = (weights.load(tmp_path / name / "weights" / "0.safetensors") for name in ("first", "both"))
    jax.tree.map(np.testing.assert_array_equal, first, both)
    after = weights.load(tmp_path / "both" / "weights" / "1.safetensors")
    assert set(after["params"]) == {"backbone", "head"}
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), after["params"]["backbone"], both["params"]["backbone"]
    )
    assert max(jax.tree.leaves(moved)) < 0.1


@pytest.mark.parametrize(
    ("count", "logged"),
    [(1, [16, 16, 16, 80, 80, 80]), (2, [None, 16, 16, None, 80, 80])],  # with 2 a step alone is compiled as well
)
def test_speed_is_that_of_training_alone(count, logged, tmp_path, monkeypatch):
    """By a clock that goes 1 s a step, 0.1 s in the second phase, 50 s a compilation, 7 s a table, 100 s an eval."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

        time = monotonic = perf_counter

    clock, evaluated = Clock(), []

    def timed(method, mesh, state, count, jit_step=dispatch.jit_step):
        step, compilation = jit_step(method, mesh, state, count), [50.0]

        def call(*arguments):
            clock.now += count * (1.0 if arguments[-1] < 6 else 0.1) + (compilation.pop() if compilation else 0)
            return step(*arguments)

        call._cache_size = step._cache_size
        return call

    def make_table(self, phase, variables, done, before):
        clock.now += 7
        return {}

    def evals(*_):
        clock.now += 100
        evaluated.append(None)
        return {}

    for module in (metrics, dispatch, training):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(dispatch, "jit_step", timed)
    monkeypatch.setattr(Loop, "make_table", make_table)
    monkeypatch.setattr(training.results, "run_evals", evals)
    config = tiny("supervised", model={"name": "mlp", "hidden": (4,), "dtype": "float32"}, eval_every=3)
    config |= {"refresh_every": 3, "steps_per_dispatch": count}
    config |= {"phases": ({}, {"batch": {"labelled": 8, "unlabelled": 0}})}
    found = labelfx.train(config, tmp_path)["training"]
    assert len(evaluated) == 4  # after steps 3, 6 and 9, and at the end
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [line.get("images_per_second") for line in lines] == [each and pytest.approx(each) for each in logged]
    assert found["images_per_second"] == pytest.approx((16 + 8) / (1 + 0.1))
    assert found["seconds"] == pytest.approx(6 * 1 + 6 * 0.1 + 2 * count * 50 + 4 * 7)
    again = labelfx.train(config, tmp_path)["training"]  # with nothing left to do
    assert [again[key] for key in ("images_per_second", "seconds")] == [
        found[key] for key in ("images_per_second", "seconds")
    ]


def test_cross_entropy_is_computed_in_float32():
    logits, label = jax.random.normal(jax.random.key(0), (4096, 10), jnp.bfloat16), jnp.arange(4096) % 10
    found = classification.cross_entropy(logits, label, label_smoothing=0.1)
    assert found.dtype == jnp.float32
    assert found == classification.cross_entropy(logits.astype(jnp.float32), label, label_smoothing=0.1)


def test_share_of_same_class_pairs():
    label = np.array([0, 1, 0, -1, 0, 1], np.int32)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and label[i] >= 0 and label[j] >= 0]
    expected = np.mean([label[i] == label[j] for i, j in pairs])
    np.testing.assert_allclose(same_class(jnp.asarray(label)), expected, rtol=1e-6)
    assert same_class(jnp.full(4, -1, jnp.int32)) == 0
    several = np.random.default_rng(1).integers(-1, 2, (17, 4)).astype(np.int8)
    several[3] = -1
    known = [row for row in several if (row >= 0).any()]
    pairs = [((a == 1) & (b == 1)).any() for i, a in enumerate(known) for j, b in enumerate(known) if i != j]
    np.testing.assert_allclose(same_class(jnp.asarray(several)), np.mean(pairs), rtol=1e-6)
