"""Condensed data sets: statistics, projector and compensators against NumPy, and what a shared compensator is for."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny
from toys import adam, assert_beats, noise, one_layer, with_head

import labelfx
from labelfx.condense import main
from labelfx.condensed.compensate import compensator
from labelfx.condensed.lighten import low_rank
from labelfx.config import ConfigError
from labelfx.data.sources import digits, npz
from labelfx.methods.from_labels.supervised import supervised
from labelfx.models import Model, batch_statistics
from labelfx.models.heads import projector
from labelfx.objectives.classification import cross_entropy, soft_cross_entropy


def normed(width=16):
    """Flattened rows through an affine map and a BatchNorm."""
    base = projector(hidden=(width,), features=width, batch_norm=True, dtype="float32")
    flat = lambda x: x.reshape(len(x), -1)  # noqa: E731
    return Model(
        lambda rng, x: base.init(rng, flat(x)),
        lambda variables, x, *, train, rng=None: base.apply(variables, flat(x), train=train),
    )


def test_batch_statistics():
    model, x = normed(5), np.random.default_rng(0).normal(size=(7, 2, 3, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    running = {"mean": np.arange(5, dtype=np.float32), "var": np.full(5, 3.0, np.float32)}
    variables["batch_stats"] = {"BatchNorm_0": running}
    found = batch_statistics(model, variables, x)["BatchNorm_0"]
    hidden = x.reshape(7, -1) @ np.asarray(variables["params"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(found["mean"], hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], hidden.var(0), rtol=1e-4, atol=1e-5)


def test_a_projector_of_the_teachers_rank_is_the_teacher():
    """r (F + C) numbers in the place of N C; with a rank less it is not, and no map of that rank is nearer."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 12)) + 3
    logits = features @ rng.normal(size=(12, 3)) @ rng.normal(size=(3, 8)) + rng.normal(size=8)

    def error(rank):
        left, right, mean, bias = low_rank(features, logits, rank)
        assert left.shape == (12, rank) and right.shape == (rank, 8)
        return np.sum(np.square((features - mean) @ left @ right + bias - logits))

    total = np.sum(np.square(logits - logits.mean(0)))
    assert error(3) < 1e-9 * total
    # Eckart and Young: what is exact can be no nearer to a lower rank than by its smallest singular value.
    smallest = np.linalg.svd(logits - logits.mean(0))[1][2] ** 2
    np.testing.assert_allclose(error(2), smallest, rtol=1e-4)
    noisy = logits + rng.normal(size=logits.shape)
    left, right, mean, bias = low_rank(features, noisy, 2)
    best = np.sum(np.square((features - mean) @ left @ right + bias - noisy))
    for _ in range(20):
        other = left + 0.02 * rng.normal(size=left.shape), right + 0.02 * rng.normal(size=right.shape)
        assert np.sum(np.square((features - mean) @ other[0] @ other[1] + bias - noisy)) > best


def test_compensator_descends_on_labels_and_statistics():
    """The gradient at 0, of one step, against NumPy: Adam's first step is its sign."""
    net, rng = with_head(normed(4), 3), np.random.default_rng(0)
    images, label = rng.random((6, 1, 2, 1), np.float32), np.arange(6, dtype=np.int32) % 3
    variables = net.init(jax.random.key(0), images)
    variables["batch_stats"]["backbone"]["BatchNorm_0"]["mean"] += 0.7

    def loss(u):
        params = jax.tree.map(np.float64, variables["params"])
        body, head = params["backbone"], params["head"]["Dense_0"]
        hidden = (images + u).reshape(6, -1) @ body["Dense_0"]["kernel"]
        norm = body["BatchNorm_0"]
        running = jax.tree.map(np.float64, variables["batch_stats"]["backbone"]["BatchNorm_0"])
        scaled = (hidden - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
        logits = (np.maximum(scaled, 0) @ body["Dense_1"]["kernel"] + body["Dense_1"]["bias"]) @ head["kernel"]
        logits += head["bias"]
        losses = [np.log(np.sum(np.exp(row))) - row[y] for row, y in zip(logits, label, strict=True)]
        away = hidden.mean(0) - running["mean"], hidden.var(0) - running["var"]
        return np.mean(losses) + 5.0 * sum(np.sqrt(np.sum(np.square(x))) for x in away)

    how = {"steps": 1, "learning_rate": 0.01, "statistics_weight": 5.0, "jitter": 0}
    u = compensator(net, variables, images, label, jax.random.key(0), **how)
    assert u.shape == (1, 1, 2, 1)
    for index in np.ndindex(*u.shape):
        up = np.zeros(u.shape)
        up[index] = 1e-5
        np.testing.assert_allclose(u[index], -0.01 * np.sign(loss(up) - loss(-up)), rtol=1e-3)
    settled = compensator(net, variables, images, label, jax.random.key(0), **(how | {"steps": 200}))
    assert loss(np.asarray(settled)) < loss(np.zeros(u.shape)) - 0.5


CLASSES, SIDE, TEACHERS = 8, 4, 2


def learn(net, objective, batch, rng, steps):
    method = supervised(net, adam(0.01), augment=noise(0.3), objective=objective)

    def step(state, rng):
        return method.step(state, {"labelled": batch}, rng)[0], None

    rng_init, rng_steps = jax.random.split(rng)
    state, _ = jax.lax.scan(step, method.init(rng_init, {"labelled": batch}), jax.random.split(rng_steps, steps))
    return method.variables(state)


@pytest.mark.slow
def test_one_compensator_for_all_classes_is_worth_more_than_images_of_one():
    """One image a class and, of as many bytes as an image each, two compensators: three images a class for the
    student. The same bytes as perturbed images of two classes, or as nothing at all, teach it less."""
    teacher = with_head(normed(32), CLASSES)
    student = with_head(one_layer("w", 32, jax.nn.relu), CLASSES)
    hard = functools.partial(cross_entropy, label_smoothing=0.0)
    how = {"steps": 100, "learning_rate": 0.05, "statistics_weight": 0.1, "jitter": 0}

    def run(seed):
        keys = jax.random.split(jax.random.key(seed), 8)
        centres = jax.random.normal(keys[0], (CLASSES, SIDE, SIDE, 1))

        def draw(rng, each):
            label = jnp.tile(jnp.arange(CLASSES, dtype=jnp.int32), each)
            return centres[label] + 0.8 * jax.random.normal(rng, (len(label), SIDE, SIDE, 1)), label

        images, label = draw(keys[1], 40)
        trained = [learn(teacher, hard, {"input": images, "label": label}, key, 100) for key in keys[2:4]]
        natural, own = draw(keys[4], 1)
        test, truth = draw(keys[5], 40)

        def taught(rows):
            logits = sum(teacher.apply(variables, rows, train=False)[0]["head"] for variables in trained) / TEACHERS
            batch = {"input": rows, "label": jnp.zeros(len(rows), jnp.int32), "target": jax.nn.softmax(logits)}
            variables = learn(student, functools.partial(soft_cross_entropy), batch, keys[6], 150)
            return jnp.mean(jnp.argmax(student.apply(variables, test, train=False)[0]["head"], -1) == truth)

        shared = [compensator(teacher, v, natural, own, keys[7], **how) for v in trained]
        single = [
            compensator(teacher, v, natural[c : c + 1], own[c : c + 1], keys[7], **how) for c, v in enumerate(trained)
        ]
        by_class = [natural[c : c + 1] + u for c, u in enumerate(single)]
        return (
            taught(jnp.concatenate([natural, *(natural + u for u in shared)])),
            taught(natural),
            taught(jnp.concatenate([natural, *by_class])),
        )

    ours, nothing, by_class = jax.jit(jax.vmap(run))(jnp.arange(10))
    print("shared", jnp.mean(ours), "none", jnp.mean(nothing), "by class", jnp.mean(by_class))
    assert_beats(ours, nothing)
    assert_beats(ours, by_class)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    labelfx.train(tiny("supervised"), folder)
    return folder


SETTINGS = {
    "sample": {},
    "compensate": {"steps": 3, "learning_rate": 0.1, "statistics_weight": 0.1, "jitter": 1},
    "lighten": {"rank": 4, "steps": 3, "learning_rate": 0.1},
}


@pytest.mark.parametrize("how", SETTINGS)
def test_a_condensed_set_is_read_by_npz(how, teacher, tmp_path):
    runs = [teacher] * (2 if how == "lighten" else 1)
    found = labelfx.condense(how, runs, tmp_path / "small.npz", per_class=2, **SETTINGS[how])
    data = npz(str(tmp_path / "small.npz"))
    assert len(data.train.inputs) == 20 and np.bincount(data.train.labels).tolist() == [2] * 10
    for ours, read in zip(found, (data.train.inputs, data.train.labels, data.train.columns["target"]), strict=False):
        np.testing.assert_array_equal(ours, read)
    target, encoder = data.train.columns["target"], labelfx.load(teacher)
    if how == "lighten":
        kept = np.load(tmp_path / "small.npz")
        left, right, mean, bias = (kept[f"projector_{each}"] for each in ("left", "right", "mean", "bias"))
        scores = np.exp((encoder(found.images) - mean) @ left @ right + bias)
        np.testing.assert_allclose(target, scores / scores.sum(1, keepdims=True), rtol=1e-3, atol=1e-5)
    else:
        np.testing.assert_allclose(target, encoder.predict(found.images), rtol=1e-4, atol=1e-6)
    real = {image.tobytes() for image in digits().train.inputs}
    share = {"sample": 1.0, "compensate": 0.5, "lighten": 0.0}[how]
    assert np.mean([image.tobytes() in real for image in found.images]) == share
    again = labelfx.condense(how, runs, tmp_path / "again.npz", per_class=2, **SETTINGS[how])
    np.testing.assert_array_equal(found.images, again.images)


def test_a_student_learns_from_it(teacher, tmp_path):
    labelfx.condense("sample", [teacher], tmp_path / "small.npz", per_class=2)
    student = labelfx.recipe("condensed", {"data.name": f"npz:{tmp_path}/small.npz", "batch.labelled": 16, "steps": 4})
    student["optimizer"]["schedule"]["warmup_steps"] = 0
    found = labelfx.train({**student, "evals": {"head": {}}}, tmp_path / "student")
    assert found["metrics"]["head"]["n"] == 382


def test_what_cannot_be_condensed_is_said_in_one_line(teacher, tmp_path):
    plain = tmp_path / "plain"
    labelfx.train(tiny("supervised", model={"name": "mlp", "hidden": (4,), "dtype": "float32"}), plain)
    compensated, light = SETTINGS["compensate"], SETTINGS["lighten"]
    cases = [
        (("sample", [], "a.npz", {"per_class": 2}), "--runs: none given"),
        (("sample", [teacher], "a.txt", {"per_class": 2}), "must end in .npz"),
        (("sampel", [teacher], "a.npz", {"per_class": 2}), "did you mean 'sample'"),
        (("sample", [teacher], "a.npz", {"per_class": 3}), "2 labelled images of the class 0, fewer than 3"),
        (("sample", [teacher], "a.npz", {}), "condense.per_class: missing; must be an integer from 1"),
        (
            ("compensate", [teacher], "a.npz", {"per_class": 1, **compensated}),
            "less than a set of 10 images and 1 comp",
        ),
        (("compensate", [plain], "a.npz", {"per_class": 2, **compensated}), "has no BatchNorm"),
        (("lighten", [teacher], "a.npz", {"per_class": 2, **light}), "1 given; must be two, a classifier and an enc"),
        (("lighten", [teacher, plain], "a.npz", {"per_class": 2, **light, "rank": 5}), "rank = 5: must be at most 4"),
    ]
    for (how, runs, out, settings), message in cases:
        with pytest.raises(ConfigError, match=re.escape(message)):
            labelfx.condense(how, runs, tmp_path / out, **settings)
        assert not (tmp_path / out).exists()


def test_the_command(teacher, tmp_path, monkeypatch, capsys):
    words = ["condense", "sample", f"--runs={teacher}", f"--out={tmp_path / 'a.npz'}", "--set", "per_class=1"]
    monkeypatch.setattr("sys.argv", words)
    main()
    assert capsys.readouterr().out.endswith("a.npz: 10 images of 10 classes\n")
    monkeypatch.setattr("sys.argv", [*words, "runs=3"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: --set runs=3: no setting of sample\n"


def test_a_projector_labels_every_view(tmp_path):
    """Of full rank, on the features that the teacher's linear head reads, it says what the teacher says: the loss of a
    step is that of `teachers`. An encoder of other features is refused."""
    mlp = {"name": "mlp", "hidden": (16,), "dtype": "float32"}
    labelfx.train(tiny("supervised", model=mlp), tmp_path / "teacher")
    runs = [tmp_path / "teacher"] * 2
    file = tmp_path / "light.npz"
    labelfx.condense("lighten", runs, file, per_class=2, rank=10, steps=0, learning_rate=0.1)
    untold = {"data": {"name": f"npz:{file}"}, "labels": {"name": "none"}, "batch": {"labelled": 0, "unlabelled": 16}}
    config = tiny("distillation", model=mlp, teacher=str(runs[0]), log_every=1, **untold)
    config["method"] |= {"soft_weight": 1.0}
    augment = config["method"]["augment"]
    soft = {"name": "low_rank", "file": str(file), "encoder": str(runs[0]), "augment": augment}
    light = config | {"teacher": (), "method": config["method"] | {"soft_labels": soft}}
    losses = []
    for name, each in (("live", config), ("light", light)):
        labelfx.train(each, tmp_path / name)
        losses.append(json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])["soft_loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)
    labelfx.train(tiny("supervised", model=mlp | {"hidden": (8,)}, steps=0), tmp_path / "narrow")
    with pytest.raises(ConfigError, match="has 8 features, the projector 16"):
        other = soft | {"encoder": str(tmp_path / "narrow")}
        labelfx.train(light | {"method": light["method"] | {"soft_labels": other}}, tmp_path / "other")
    with pytest.raises(ConfigError, match="no projector there .*; labelfx.condense lighten writes one"):
        other = soft | {"file": str(tmp_path / "nothing.npz")}
        labelfx.train(light | {"method": light["method"] | {"soft_labels": other}}, tmp_path / "other")
