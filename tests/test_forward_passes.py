"""The forward passes of a step: their dropout masks, the rows that BatchNorm's groups see, and the averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import recipe_of, tiny, with_augment
from toys import one_layer

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.loop import optim, state
from labelfx.methods.self_supervised.moco import momentum_contrast
from labelfx.models import Model, Trained, apply_together, stack
from labelfx.models.backbones import conv3, mean_pool, resnet18, wrn28
from labelfx.models.heads import linear, projector, siamese_mlp

ROWS, CLASSES = 16, 3
MOMENTUM_CONTRAST = ("moco", "dual_view", "feature_transform", "inter_clr")


def build(name, model, image, *, tx=None, **changes):
    """A method as its recipe has it, without augmentation, and a batch of both streams."""
    config = tiny(recipe_of(name))
    config["method"] = with_augment(config["method"], {"name": "identity"}) | changes
    settings = configs.phases(configs.check(config))[0]["method"]
    net = stack(backbone=model, head=linear(features=CLASSES))
    trained = net.init(jax.random.key(7), image)
    index = np.arange(ROWS, dtype=np.int32)
    stream = {"input": image, "label": index % CLASSES, "index": index}
    method = configs.build(
        configs.METHODS,
        settings,
        model=model,
        classifier=net,
        tx=tx or optax.sgd(0.1),
        steps=4,
        num_classes=CLASSES,
        num_examples=1500,
        backbone=trained,
        teachers=(Trained(net, trained, (*range(CLASSES),)),),
        task="class",
    )
    streams = {"labelled": stream, "unlabelled": stream}
    return method, streams | {"audit": streams} | ({"frozen": method.frozen} if method.frozen else {})


def images(seed=0):
    return np.random.default_rng(seed).random((ROWS, 4, 4, 1), np.float32)


# Dropout masks


@pytest.mark.parametrize("name", MOMENTUM_CONTRAST)
def test_query_and_key_of_one_text_differ_by_dropout(name):
    """The views of `identity` are one text: with one mask for both networks nothing would be left to learn."""
    tokens = np.random.default_rng(0).integers(1, 20, (ROWS, 5), np.int32)
    method, batch = build(name, mean_pool(20, width=32, dropout=0.5, dtype="float32"), tokens)
    _, metrics = jax.jit(method.step)(method.init(jax.random.key(0), batch), batch, jax.random.key(1))
    print(name, metrics["positive_score"])
    assert 0.1 < metrics["positive_score"] < 0.99


PASSES = {
    "dino": (2, {}),
    "dual_encoder": (2, {"shared": False}),
    "meta_pseudo_labels": (3, {"feedback_forward": "redrawn", "feedback": "difference"}),
    "mutual_learning": (2, {}),
    "pnda": (2, {}),
    "self_meta_pseudo_labels": (2, {"feedback_forward": "redrawn"}),
    "siamese": (4, {}),
    "test_time_adaptation": (4, {}),
}


@pytest.mark.parametrize("name", PASSES)
def test_every_forward_pass_has_a_key_of_its_own(name):
    count, changes = PASSES[name]
    seen, base = [], one_layer("w", 4)

    def apply(variables, x, *, train, rng=None):
        if train:
            jax.debug.callback(lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(rng))
        return base.apply(variables, x, train=train)

    method, batch = build(name, Model(base.init, apply), images(), **changes)
    start = method.init(jax.random.key(0), batch)
    jax.block_until_ready(jax.jit(method.step)(start, batch, jax.random.key(1)))
    jax.effects_barrier()
    assert len(seen) == count == len(set(seen))


def test_inter_clr_starts_from_centroids_that_are_not_the_queue():
    method, batch = build("inter_clr", one_layer("w", 4), images())
    start = jax.jit(method.init)(jax.random.key(0), batch)
    rows = len(start.centroids)
    assert jnp.max(jnp.abs(start.centroids - start.moco.queue[:rows])) > 0.1


def test_a_name_has_a_key_whatever_the_others_are():
    key = jax.random.key(3)
    first, second = state.named(key, "labelled/weak", "model")
    assert state.named(key, "model", "queue", "labelled/weak")[::2] == [second, first]
    assert first != second


# Groups of BatchNorm


def grouped(groups, seen):
    """One layer that hands out which row of pixels lies in which group, at each pass in training."""
    base = one_layer("w", 4)

    def apply(variables, x, *, train, rng=None):
        if train:
            jax.debug.callback(
                lambda first: seen.append(np.asarray(first)), x.reshape(groups, -1, *x.shape[1:])[:, :, 0, 0, 0]
            )
        return base.apply(variables, x, train=train)

    return Model(base.init, apply, groups)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("name", ["moco", "test_time_adaptation"])
def test_keys_are_shuffled_between_groups_and_put_back(name, groups):
    """Where the networks agree and nothing is augmented a key is its query, if it is of the same image."""
    numbered = np.arange(ROWS, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 1), np.float32)
    seen = []
    if name == "moco":
        settings = {"augment": lambda rng, x: x, "momentum": 0.9, "queue_size": ROWS, "projector": one_layer("v", 3)}
        init, advance = momentum_contrast(grouped(groups, seen), optax.sgd(0.0), **settings)
        tell = lambda query, key, queue: (jnp.mean(query), {"pair": (query, key)})  # noqa: E731
        batch = {"unlabelled": {"input": numbered}}
        step = jax.jit(functools.partial(advance, loss_fn=tell))
        query, key = step(init(jax.random.key(0), batch), batch, jax.random.key(1))[2]["pair"]
    else:
        method, batch = build(name, grouped(groups, seen), numbered)
        new, _ = jax.jit(method.step)(method.init(jax.random.key(0), batch), batch, jax.random.key(1))
        query, key = new.queue.features[:ROWS], new.queue.keys[:ROWS]
    jax.effects_barrier()
    np.testing.assert_allclose(key, query, rtol=1e-5)
    in_order = np.arange(ROWS).reshape(groups, -1)
    shuffled = [each for each in seen if not np.array_equal(each, in_order)]
    assert len(seen) == {"moco": 2}.get(name, 4) and len(shuffled) == (groups > 1)
    for order in shuffled:
        assert sorted(order.ravel()) == list(range(ROWS))
        assert all(set(mine) != set(of_query) for mine, of_query in zip(order, in_order, strict=True))


def test_a_group_has_its_share_of_each_batch_and_rows_come_back_in_order():
    """FixMatch's batches in four groups: plainly concatenated they would be [64, 176, 0], [0, 240, 0] and so on."""
    seen, sizes = [], (64, 448, 448)
    batches = [
        np.full((size, 1, 1, 1), kind, np.float32) + np.arange(size)[:, None, None, None] / 1024
        for kind, size in enumerate(sizes)
    ]
    model = grouped(4, seen)
    variables = model.init(jax.random.key(0), batches[0])
    outputs, _ = apply_together(model, variables, batches, train=True)
    jax.effects_barrier()
    assert [[np.sum(row // 1 == kind) for kind in range(3)] for row in seen[0]] == [[16, 112, 112]] * 4
    plain, _ = model.apply(variables, np.concatenate(batches), train=False)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(apply_together(model, variables, batches, train=False)[0], plain)
    with pytest.raises(ValueError, match=r"norm_groups must divide each batch: 4 groups of \[64, 6\] rows"):
        apply_together(model, variables, [batches[0], batches[1][:6]], train=True)


@pytest.mark.parametrize(
    "name", ["consistency", "distillation", "meta_pseudo_labels", "mutual_learning", "self_meta_pseudo_labels"]
)
def test_methods_of_two_streams_give_each_group_its_share(name):
    """And a model without statistics does the same whatever its groups."""
    after = []
    for groups in (4, 1):
        seen, changes = [], {"feedback_forward": "frozen"} if name.endswith("meta_pseudo_labels") else {}
        method, batch = build(name, grouped(groups, seen), images(), **changes)
        batch |= {"labelled": batch["labelled"] | {"input": np.zeros_like(images())}}
        after.append(jax.jit(method.step)(method.init(jax.random.key(0), batch), batch, jax.random.key(1)))
        jax.effects_barrier()
        assert seen and all(np.all(np.sum(rows == 0, 1) == ROWS // groups) for rows in seen)
    for mine, plain in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=1e-6)


def test_a_model_says_how_many_groups_its_batch_norm_has():
    head = {"hidden": (4,), "features": 2, "dtype": "float32"}
    backbone = {"norm_groups": 4, "width": 2, "dtype": "float32"}
    parts = conv3(**backbone), resnet18(stem="cifar", **backbone), wrn28(dropout=0.0, **backbone)
    heads = projector(batch_norm=True, norm_groups=4, **head), siamese_mlp(output_norm=True, norm_groups=4, **head)
    assert [part.norm_groups for part in (*parts, *heads)] == [4] * 5
    assert linear(features=2).norm_groups == 1
    assert stack(backbone=parts[0], head=linear(features=2)).norm_groups == 4


# Averages of a network


SGD = {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None}
# What follows the network, and how many steps after an update: MoCo's key encoder moves at the start of a step.
AVERAGES = {
    "consistency": (lambda state: state.average["params"], 0, {"ema": 0.5}),
    "dino": (lambda state: state.teacher_params, 0, {"center_momentum": 1.0}),
    "moco": (lambda state: state.key_params, 1, {}),
    "siamese": (lambda state: state.target_params, 0, {}),
    "test_time_adaptation": (lambda state: state.momentum_params, 1, {}),
}


def history(name, accumulate, steps):
    """The average after every step, on the same images at each; the first entry is the start."""
    average, _, changes = AVERAGES[name]
    constant = functools.partial(optim.constant, warmup_steps=0)
    tx = optim.sgd(steps, schedule=constant, accumulate=accumulate, **SGD)
    momenta = {key: 0.5 for key in tiny(recipe_of(name))["method"] if key in ("momentum", "final_momentum")}
    method, batch = build(name, one_layer("w", 4, jnp.tanh), images(), tx=tx, **momenta, **changes)

    @jax.jit
    def run(start):
        def step(old, _):
            new, _ = method.step(old, batch, jax.random.key(1))
            return new, average(new)

        return jax.lax.scan(step, start, None, steps)[1]

    start = method.init(jax.random.key(0), batch)
    flat = lambda tree, rows: np.concatenate([np.reshape(leaf, (rows, -1)) for leaf in jax.tree.leaves(tree)], 1)  # noqa: E731
    return np.concatenate([flat(average(start), 1), flat(run(start), steps)])


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_move_at_updates(name):
    """Every third of nine accumulated steps is an update: averages move there and as far as in three plain steps."""
    _, late, _ = AVERAGES[name]
    rows = history(name, 3, 9)
    moves = np.flatnonzero(np.abs(np.diff(rows, axis=0)).max(1) > 1e-6)
    assert moves.tolist() == ([3, 6] if late else [2, 5, 8])
    if not late:  # MoCo's queue and that of the adaptation change at every step, and the gradients with it
        np.testing.assert_allclose(rows[3::3], history(name, 1, 3)[1:], rtol=1e-4, atol=1e-6)


def test_only_parameters_and_batch_statistics_are_averaged():
    tx = optax.sgd(0.1)
    half, ids = {"w": jnp.full(2, 2.0)}, jnp.arange(3)
    network = state.start(tx, {"params": half, "batch_stats": half, "scale": half, "vocabulary": {"ids": ids + 1}})
    average = {"params": {"w": jnp.zeros(2)}, "batch_stats": {"w": jnp.zeros(2)}, "scale": {"w": jnp.zeros(2)}}
    found = state.follow(average | {"vocabulary": {"ids": ids}}, network, 0.5)
    assert {name: float(tree["w"][0]) for name, tree in found.items() if "w" in tree} == {
        "params": 1.0,
        "batch_stats": 1.0,
        "scale": 2.0,
    }
    assert found["vocabulary"]["ids"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("meta_pseudo_labels", "config.optimizer"),
        ("meta_pseudo_labels", "config.method.teacher_optimizer"),
        ("self_meta_pseudo_labels", "config.optimizer"),
        ("self_meta_pseudo_labels", "config.method.first_optimizer"),
    ],
)
def test_feedback_needs_an_update_at_every_step(name, optimizer, tmp_path):
    config = tiny(name)
    *_, key = optimizer.split(".")
    part = config["method"] if key in config["method"] else config
    part[key] = part[key] | {"accumulate": 2}
    with pytest.raises(ConfigError, match=f"config.method: {optimizer}.accumulate: must be 1"):
        labelfx.train(config, tmp_path)
