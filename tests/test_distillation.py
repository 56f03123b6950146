"""Distillation from a trained teacher and mutual learning, against NumPy and on the digits."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import tiny
from test_methods import affine, identity
from toys import with_head

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data.mixing import Mix
from labelfx.finished import weights
from labelfx.loop import run
from labelfx.loop.training import Loop
from labelfx.methods.from_teachers.distillation import distillation
from labelfx.methods.from_teachers.mutual_learning import mutual_learning
from labelfx.methods.targets.soft_labels.networks import teachers
from labelfx.models import Trained, stack
from labelfx.models.heads import linear
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.distillation import kd

CLASSES = 3


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def soft_loss(student, teacher, temperature):
    """T^2 KL(teacher || student), row by row."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    divergences = [sum(a * np.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    return temperature**2 * np.mean(divergences)


def hard_loss(logits, label):
    return -np.mean([np.log(row[k]) for row, k in zip(softmax(logits), label, strict=True)])


def logits_of(variables, image):
    features = image.reshape(len(image), -1).astype(np.float64) @ np.asarray(variables["params"]["backbone"]["w"])
    (head,) = variables["params"]["head"].values()
    return features @ np.asarray(head["kernel"]) + np.asarray(head["bias"])


def central_difference(loss, tree, direction, size=1e-5):
    """The slope of `loss` along a direction in the parameters, in float64."""
    ahead, behind = (jax.tree.map(lambda p, d, s=s: np.float64(p) + s * d, tree, direction) for s in (size, -size))
    return (loss(ahead) - loss(behind)) / (2 * size)


def some_batch(rng, labelled=4, unlabelled=6):
    def image(rows):
        return rng.random((rows, 2, 2, 1), np.float32)

    streams = {"labelled": labelled, "unlabelled": unlabelled}
    batch = {name: {"input": image(rows)} for name, rows in streams.items() if rows}
    batch["audit"] = {"unlabelled": {"label": np.array([0, 1, 2, -1, 1, 0][:unlabelled], np.int32)}}
    if labelled:
        batch["labelled"]["label"] = rng.integers(0, CLASSES, labelled, dtype=np.int32)
    return batch


@pytest.fixture(scope="module")
def teacher():
    model = stack(backbone=affine("w", 5), head=linear(features=CLASSES))
    return Trained(model, model.init(jax.random.key(7), jnp.ones((1, 2, 2, 1))), (*range(CLASSES),))


@pytest.mark.parametrize("labelled, unlabelled, soft_weight", [(4, 6, 0.3), (4, 0, 0.9), (0, 6, 1.0)])
def test_a_step_of_distillation(labelled, unlabelled, soft_weight, teacher):
    method = distillation(
        with_head(affine("w", 5), CLASSES),
        optax.sgd(1.0),
        10,
        "class",
        augment=identity,
        soft_labels=teachers((teacher,), "class", CLASSES, augment=lambda rng, images: 1 - images, combine="logits"),
        soft_objective=functools.partial(kd, temperature=2.5),
        soft_weight=soft_weight,
        objective=functools.partial(cross_entropy, label_smoothing=0.0),
    )
    batch = some_batch(np.random.default_rng(0), labelled, unlabelled) | {"frozen": method.frozen}
    state = method.init(jax.random.key(0), batch)
    assert method.frozen[0] is teacher.variables
    image = np.concatenate([batch[name]["input"] for name in ("labelled", "unlabelled") if name in batch])
    target = logits_of(teacher.variables, 1 - image)

    def loss(params):
        logits = logits_of({"params": params}, image)
        hard = hard_loss(logits[:labelled], batch["labelled"]["label"]) if labelled else 0.0
        return soft_weight * soft_loss(logits, target, 2.5) + (1 - soft_weight) * hard

    after, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    state, after = state.student, after.student
    np.testing.assert_allclose(metrics["loss"], loss(state.params), rtol=1e-5)
    gradient = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b), state.params, after.params)
    rng = np.random.default_rng(1)
    for _ in range(4):
        direction = jax.tree.map(lambda p: rng.standard_normal(p.shape), state.params)
        slope = sum(map(np.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))
        np.testing.assert_allclose(slope, central_difference(loss, state.params, direction), rtol=1e-4, atol=1e-5)
    if unlabelled:
        guess = target[labelled:].argmax(-1)
        truth = batch["audit"]["unlabelled"]["label"]
        np.testing.assert_allclose(metrics["pseudo_label_accuracy"], np.mean((guess == truth)[truth >= 0]), rtol=1e-6)


def test_a_step_on_mixed_rows(teacher):
    """Rows are mixed within their stream; the loss is that of what is said of each and of its partner, by share."""
    partners = {4: np.array([1, 2, 3, 0]), 6: np.array([5, 4, 3, 2, 1, 0])}
    method = distillation(
        with_head(affine("w", 5), CLASSES),
        optax.sgd(1.0),
        10,
        "class",
        augment=identity,
        soft_labels=teachers((teacher,), "class", CLASSES, augment=identity, combine="logits"),
        soft_objective=functools.partial(kd, temperature=1.0),
        soft_weight=0.6,
        objective=functools.partial(cross_entropy, label_smoothing=0.0),
        mix=lambda rng, n, shape, crops: Mix(jnp.asarray(partners[n]), jnp.float32(0.3), None),
    )
    batch = some_batch(np.random.default_rng(0)) | {"frozen": method.frozen}
    state = method.init(jax.random.key(0), batch)
    _, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    image, label = (
        np.concatenate([batch[name]["input"] for name in ("labelled", "unlabelled")]),
        batch["labelled"]["label"],
    )
    partner = np.concatenate([partners[4], 4 + partners[6]])
    target = logits_of(teacher.variables, image)
    logits = logits_of(state.student.variables, 0.3 * image + 0.7 * image[partner])
    soft = 0.3 * soft_loss(logits, target, 1.0) + 0.7 * soft_loss(logits, target[partner], 1.0)
    hard = 0.3 * hard_loss(logits[:4], label) + 0.7 * hard_loss(logits[:4], label[partners[4]])
    np.testing.assert_allclose([metrics["soft_loss"], metrics["hard_loss"]], [soft, hard], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], 0.6 * soft + 0.4 * hard, rtol=1e-5)


def test_a_column_that_nothing_gives_is_named(tmp_path):
    config = tiny("distillation", model=MODEL, teacher=())
    config["method"]["soft_labels"] = {"name": "labels", "column": "given", "smoothing": 0.0}
    with pytest.raises(ConfigError, match="config.labels gives no 'given', which distillation reads"):
        labelfx.train(config, tmp_path)


def test_a_step_of_mutual_learning():
    """Each network's gradient is that of its own loss, with the other's probabilities held."""
    method = mutual_learning(
        with_head(affine("w", 5), CLASSES),
        optax.sgd(1.0),
        10,
        augment=identity,
        peer_optimizer=lambda steps: optax.sgd(0.5),
        temperature=1.5,
    )
    batch = some_batch(np.random.default_rng(0))
    state = method.init(jax.random.key(0), batch)
    image = np.concatenate([batch["labelled"]["input"], batch["unlabelled"]["input"]])
    before = [logits_of(network.variables, image) for network in state]
    after, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    rng = np.random.default_rng(1)
    for index, (rate, name) in enumerate([(1.0, "loss"), (0.5, "peer_loss")]):

        def loss(params, index=index):
            logits = logits_of({"params": params}, image)
            return hard_loss(logits[:4], batch["labelled"]["label"]) + soft_loss(logits, before[1 - index], 1.5)

        params = state[index].params
        np.testing.assert_allclose(metrics[name], loss(params), rtol=1e-5)
        gradient = jax.tree.map(lambda a, b: (np.float64(a) - np.float64(b)) / rate, params, after[index].params)  # noqa: B023
        for _ in range(4):
            direction = jax.tree.map(lambda p: rng.standard_normal(p.shape), params)
            slope = sum(map(np.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))
            np.testing.assert_allclose(slope, central_difference(loss, params, direction), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(before[0], before[1])
    assert metrics["agreement"] == np.mean(before[0].argmax(-1) == before[1].argmax(-1))
    jax.tree.map(np.testing.assert_array_equal, method.variables(after), after.student.variables)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A teacher that has seen every label of the digits."""
    folder = tmp_path_factory.mktemp("teacher")
    labels = {"name": "all_labels"}
    evals = {"head": {}}
    batch = {"labelled": 64, "unlabelled": 0}
    optimizer = tiny("supervised")["optimizer"] | {"learning_rate": 0.01}
    changes = {
        "optimizer": optimizer,
        "labels": labels,
        "evals": evals,
        "batch": batch,
        "steps": 150,
        "log_every": 150,
        "save_every": 150,
    }
    results = labelfx.train(tiny("supervised", model=MODEL, **changes), folder)
    return folder, results["metrics"]["head"]["accuracy"]


MODEL = {"name": "mlp", "hidden": (32,), "dtype": "float32"}


def student(folder, workdir, *, seed, **changes):
    """Accuracy of a student with two labels a class."""
    config = tiny("distillation", model=MODEL, teacher=str(folder), evals={"head": {}}, steps=250, **changes)
    config |= {"seed": seed, "label_seed": seed, "data_seed": seed, "log_every": 250, "save_every": 250}
    config |= {"batch": {"labelled": 16, "unlabelled": 64}, "optimizer": config["optimizer"] | {"learning_rate": 0.01}}
    return labelfx.train(config, workdir)["metrics"]["head"]["accuracy"]


def test_unlabelled_images_carry_the_teachers_knowledge(taught, tmp_path):
    """Two labels a class do not tell the classes apart; a teacher's probabilities on images without labels do."""
    folder, known = taught
    method = tiny("distillation")["method"]
    gains = []
    for seed in range(3):
        with_teacher = student(folder, tmp_path / f"{seed}", seed=seed)
        alone = student(folder, tmp_path / f"{seed}_alone", seed=seed, method=method | {"soft_weight": 0.0})
        gains.append(with_teacher - alone)
        assert with_teacher > known - 0.06
    print("teacher", known, "gains over the labels alone:", np.round(gains, 3))
    assert min(gains) > 0.1


def test_the_teacher_is_in_no_checkpoint_and_stays_as_it_was(taught, tmp_path, monkeypatch):
    folder, _ = taught
    seen = []
    real = Loop.save

    def save(self):
        seen.append(jax.tree.leaves(self.state))
        return real(self)

    monkeypatch.setattr(Loop, "save", save)
    labelfx.train(tiny("distillation", model=MODEL, teacher=str(folder)), tmp_path / "run")
    parameters = 4
    assert sum(np.ndim(leaf) > 0 for leaf in seen[-1]) == 3 * parameters  # and AdamW's two moments of each
    before, loaded = (
        weights.load(folder / "weights/0.safetensors"),
        run.load_teacher(folder, [*map(str, range(10))]).variables,
    )
    jax.tree.map(np.testing.assert_array_equal, before, loaded)


def test_a_student_may_start_from_a_trained_network(taught, tmp_path):
    """One that starts from its teacher has nothing to learn of it; without one it starts from fresh parameters."""
    folder, _ = taught
    still = tiny("distillation")["optimizer"] | {"learning_rate": 1e-9}
    config = tiny("distillation", model=MODEL, teacher=str(folder), backbone=str(folder), optimizer=still)
    labelfx.train(config, tmp_path)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["soft_loss"] < 1e-6 and last["agreement"] == 1


def test_rounds_of_self_distillation(taught, tmp_path):
    """A second phase learns from the first one's student, from fresh parameters."""
    folder, _ = taught
    config = tiny("distillation", model=MODEL, teacher=str(folder), phases=({}, {"teacher": "previous"}))
    labelfx.train(config, tmp_path)
    first, second = (weights.load(tmp_path / f"weights/{phase}.safetensors") for phase in (0, 1))
    assert jax.tree.map(np.shape, first) == jax.tree.map(np.shape, second)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first, second))) > 0.05


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher": ""}, "config.teacher: missing; teachers takes one, a run's workdir or 'previous'"),
        ({"teacher": "previous"}, "config.teacher = 'previous': the first phase has none before it"),
        ({"batch": {"labelled": 0, "unlabelled": 16}}, "config.method: soft_weight = 0.9: must be 1 where"),
    ],
)
def test_one_line(changes, message, taught, tmp_path):
    with pytest.raises(ConfigError) as caught:
        labelfx.train({**tiny("distillation", model=MODEL, teacher=str(taught[0])), **changes}, tmp_path)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_teacher_that_does_not_fit(taught, tmp_path):
    digits = [*map(str, range(10))]
    with pytest.raises(ConfigError, match="knows '7', no class of these data; allowed: 0, 1, 2, 3, 4, 5, 6$"):
        run.load_teacher(taught[0], digits[:7])
    assert run.load_teacher(taught[0], digits[::-1]).classes == (*range(9, -1, -1),)
    labelfx.train(tiny("simclr", model=MODEL), tmp_path / "simclr")
    with pytest.raises(ConfigError, match="has trained no classifier"):
        run.load_teacher(tmp_path / "simclr", digits)
    results = json.loads((path := tmp_path / "simclr/results.json").read_text())
    path.write_text(json.dumps({key: value for key, value in results.items() if key != "data"}))
    with pytest.raises(ConfigError, match="does not say which classes it knows; python -m labelfx.evaluate writes it"):
        run.load_teacher(tmp_path / "simclr", digits)
    with pytest.raises(FileNotFoundError, match="no config.json there"):
        run.load_teacher(tmp_path / "nothing", digits)


def test_a_class_that_nobody_knows(taught, tmp_path):
    """Specialists of the digits 0 to 8: the 9 has labels or is refused."""
    few = {"data": {"name": "digits", "merge": tuple((c,) for c in range(9))}, "labels": {"name": "per_class", "k": 2}}
    labelfx.train(tiny("supervised", model=MODEL, **few), tmp_path / "few")
    config = tiny("distillation", model=MODEL, teacher=str(tmp_path / "few"))
    labelfx.train(config, tmp_path / "labels")
    config["batch"]["labelled"], config["method"]["soft_weight"] = 0, 1.0
    with pytest.raises(
        ConfigError, match="config.teacher: none of the 1 knows the class '9', of which no labelled row"
    ):
        labelfx.train(config, tmp_path / "none")


def test_a_teacher_counts_by_the_hash_of_its_run(taught, tmp_path):
    config = configs.check(tiny("distillation", model=MODEL, teacher=str(taught[0])))
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "config.json").write_text((taught[0] / "config.json").read_text())
    again = configs.check(tiny("distillation", model=MODEL, teacher=str(moved)))
    assert configs.config_hash(config) == configs.config_hash(again)
