"""Stored soft labels: the command that writes them, and training from them, against a teacher that looks itself."""

import json
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.config.annotations import Part
from labelfx.data.batches import batch_at
from labelfx.data.mixing import selfmix
from labelfx.data.placement import Placement
from labelfx.data.sources import digits
from labelfx.data.stored import Stored, view_keys
from labelfx.finished import weights
from labelfx.labels import reinforced
from labelfx.loop.claims import locked
from labelfx.loop.run import load_teacher
from labelfx.loop.training import Loop
from labelfx.methods.targets.soft_labels.stored import dense, opened, pooled_at
from labelfx.reinforce import main

MODEL = {"name": "mlp", "hidden": (16,), "dtype": "float32"}
RESNET = {"name": "resnet18", "stem": "cifar", "width": 2, "remat": False, "dtype": "float32"}
AUGMENT = {"name": "crop_flip", "padding": 1, "flip": False}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two runs, the second of another seed."""
    folder = tmp_path_factory.mktemp("teachers")
    for seed in range(2):
        changes = {"model": MODEL, "seed": seed, "steps": 60, "labels": {"name": "all_labels"}, "log_every": 60}
        labelfx.train(tiny("supervised", **changes, save_every=60), folder / str(seed))
    return [folder / "0", folder / "1"]


@pytest.fixture(scope="module")
def file(teachers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "labels"
    labelfx.reinforce(teachers, folder, views=3, top=10, seed=5)
    return folder


def student(file, **changes):
    """A run that learns from the file."""
    config = tiny("distillation", model=MODEL, teacher=(), **changes)
    soft = {"name": "stored", "file": str(file), "fill": "spread", "crops": 1}
    return config | {"method": config["method"] | {"soft_labels": soft}}


def views_of(rows, views, seed=5):
    """Views of training rows of the digits."""
    augment = configs.build(Part("data.augment"), AUGMENT)
    return augment(view_keys(seed, jnp.asarray(rows), jnp.asarray(views)), jnp.asarray(digits().train.inputs[rows]))


def expected(teachers, rows, views):
    """Mean probabilities of the teachers, float64, for one view of each row."""
    found = []
    for each in teachers:
        teacher = load_teacher(each, digits().class_names)
        outputs = teacher.model.apply(teacher.variables, views_of(rows, views), train=False)[0]
        logits = np.asarray(outputs["head"], np.float64)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        found.append(powers / powers.sum(1, keepdims=True))
    return np.mean(found, 0)


def test_what_is_stored_is_the_mean_of_what_teachers_say_of_a_view(teachers, file):
    about, columns = opened(str(file), "views", 10, len(digits().train.inputs))
    assert about["augment"] == AUGMENT and about["views"] == 3 and len(about["shards"]) == 2
    rows, views = np.array([0, 7, 1100]), np.array([0, 2, 1])
    index, value = (columns[name][rows[:, None], views[:, None]][:, 0] for name in ("soft_index", "soft_value"))
    wanted = expected(teachers, rows, views)
    np.testing.assert_allclose(value, -np.sort(-wanted, 1), rtol=2e-3, atol=1e-6)  # half floats
    np.testing.assert_allclose(np.take_along_axis(wanted, index, 1), value, rtol=2e-3, atol=1e-6)


def test_a_view_is_a_function_of_seed_row_and_number():
    """Of each of the three: another one is another key, and whatever else is asked for changes none."""
    rows, views = jnp.array([3, 3, 4, 3]), jnp.array([0, 1, 0, 0])
    a, other_view, other_row, again = jax.random.key_data(view_keys(5, rows, views))
    assert (a == again).all() and (a != other_view).any() and (a != other_row).any()
    assert (a != jax.random.key_data(view_keys(6, rows, views))[0]).any()


def test_the_gradient_is_that_of_teachers_who_look_at_the_same_views(teachers, file, tmp_path, monkeypatch):
    """Through the same half floats: the gradient of a step of the run, against one by hand."""
    seen = {}
    real = Loop.run

    def keep(self):
        batch = batch_at(0, **self.how(self.phase, self.table))
        seen.update(method=self.phase.method, state=jax.device_get(self.state), batch=batch)
        return real(self)

    monkeypatch.setattr(Loop, "run", keep)
    optimizer = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    optimizer |= {"schedule": {"name": "constant", "warmup_steps": 0}, "clip_norm": None, "accumulate": 1}
    labelfx.train(student(file, optimizer=optimizer, steps=1), tmp_path)
    method, state, batch = seen["method"], seen["state"], seen["batch"]
    after = jax.jit(method.step)(state, batch, jax.random.key(3))[0]
    found = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.student.params, after.student.params)

    which = [(batch[name]["index"], batch[name]["view"][:, 0]) for name in ("labelled", "unlabelled")]
    which, hard = [np.concatenate(each) for each in zip(*which, strict=True)], batch["labelled"]["label"]
    target = expected(teachers, *which).astype(np.float16).astype(np.float32)
    target, rows = target / target.sum(1, keepdims=True), views_of(*which)
    classifier = load_teacher(teachers[0], digits().class_names).model

    def loss(params):
        logits = classifier.apply({"params": params, **state.student.model_state}, rows, train=True)[0]["head"]
        soft = -4 * jnp.mean(jnp.sum(_softened(target) * jax.nn.log_softmax(logits / 2), 1))  # T = 2
        own = jax.nn.log_softmax(logits[: len(hard)])
        return 0.9 * soft - 0.1 * jnp.mean(own[jnp.arange(len(hard)), hard])

    wanted = jax.grad(loss)(state.student.params)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def _softened(target):
    power = np.sqrt(np.maximum(target, np.finfo(np.float32).tiny))
    return power / power.sum(1, keepdims=True)


def test_another_process_opens_the_files_itself(file):
    column = opened(str(file), "views", 10, len(digits().train.inputs))[1]["soft_value"]
    sent = pickle.dumps(column)
    assert len(sent) < 1000
    where = np.array([[3], [1200]]), np.array([[0, 2], [1, 1]])
    np.testing.assert_array_equal(pickle.loads(sent)[where], column[where])


def test_two_runs_are_equal_to_the_bit_and_no_teacher_is_opened(teachers, file, tmp_path, monkeypatch):
    monkeypatch.setattr("labelfx.loop.run.load_teacher", lambda *_, **__: pytest.fail("a teacher was opened"))
    for name in "ab":
        labelfx.train(student(file), tmp_path / name)
    one, other = (labelfx.load(tmp_path / name) for name in "ab")
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_a_killed_command_goes_on_to_the_same_bytes(teachers, file, tmp_path, monkeypatch):
    real, calls = reinforced._shard, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reinforced, "_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        labelfx.reinforce(teachers, tmp_path, views=3, top=10, seed=5)
    with pytest.raises(ConfigError, match="is not whole: the command that began it ends it"):
        labelfx.train(student(tmp_path), f"{tmp_path}_run")
    with pytest.raises(ConfigError, match="holds labels that were made otherwise: seed"):
        labelfx.reinforce(teachers, tmp_path, views=3, top=10, seed=6)
    monkeypatch.setattr(reinforced, "_shard", real)
    labelfx.reinforce(teachers, tmp_path, views=3, top=10, seed=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.npy", "00001.npy", "about.json"]
    for path in file.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_a_run_does_not_go_on_with_labels_that_were_made_otherwise(teachers, tmp_path):
    labels, run = tmp_path / "labels", tmp_path / "run"
    labelfx.reinforce(teachers, labels, views=1, top=10, seed=5)
    labelfx.train(student(labels, steps=2), run)
    (run / "results.json").unlink()  # so that it goes on, after its last step
    shutil.rmtree(labels)
    labelfx.reinforce(teachers[:1], labels, views=1, top=10, seed=5)
    with pytest.raises(
        ConfigError, match="soft_labels: other labels are stored there than those that .*run has learnt"
    ):
        labelfx.train(student(labels, steps=2), run)
    shutil.rmtree(labels)
    labelfx.reinforce(teachers, labels, views=1, top=10, seed=5)
    labelfx.train(student(labels, steps=2), run)


def test_a_shard_that_another_process_writes_is_left_to_it(teachers, tmp_path, capsys):
    (tmp_path / "00001.npy.lock").touch()
    with (tmp_path / "00001.npy.lock").open("a") as held:
        assert locked(held)
        about = labelfx.reinforce(teachers, tmp_path, views=1, top=2)
    assert not about["whole"] and "1 of 2 shards are other processes' to write" in capsys.readouterr().err
    assert (tmp_path / "00000.npy").exists() and not (tmp_path / "00001.npy").exists()
    assert labelfx.reinforce(teachers, tmp_path, views=1, top=2)["whole"]


@pytest.mark.parametrize(
    "augment",
    [AUGMENT | {"padding": 2}, AUGMENT | {"flip": True}, {"name": "identity"}],
)
def test_another_augmentation_is_refused(augment, file, tmp_path):
    with pytest.raises(
        ConfigError, match="config.method.augment: gives other views than those that .* has labels of, by crop_flip"
    ):
        config = student(file)
        labelfx.train(config | {"method": config["method"] | {"augment": augment}}, tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"crops": 4}, "crops = 4: must be at most 3, the views of"),
        ({"file": "nowhere"}, "no stored labels there; python -m labelfx.reinforce writes them"),
        ({"name": "label_map"}, "its kind are 'views', label_map reads 'maps'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(changes, message, file, tmp_path):
    config = student(file)
    soft = config["method"]["soft_labels"] | changes
    soft = {"name": "label_map", "file": str(file)} if "name" in changes else soft
    with pytest.raises(ConfigError, match=message):
        labelfx.train(config | {"method": config["method"] | {"soft_labels": soft}}, tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"top": 11}, "--top=11: must be from 1 to 10"),
        ({"views": 0}, "--views=0: must be from 1 to"),
        ({"augment": {"name": "crop_flop"}}, "--augment.name = 'crop_flop': .*did you mean 'crop_flip'"),
        ({"maps": True, "views": 1}, "label maps are of one run"),
        ({"maps": True, "augment": AUGMENT, "runs": 1}, "no --views or --augment"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(changes, message, teachers, tmp_path):
    runs, changes = teachers[: changes.get("runs", 2)], {k: v for k, v in changes.items() if k != "runs"}
    with pytest.raises(ConfigError, match=message):
        labelfx.reinforce(runs, tmp_path / "out", **{"views": 1, "top": 2, **changes})


def test_labels_that_are_not_finite_are_not_stored(teachers, tmp_path):
    shutil.copytree(teachers[0], tmp_path / "run")
    found = weights.load(path := tmp_path / "run/weights/0.safetensors")
    weights.save(path, jax.tree.map(lambda x: x * np.float32(np.nan), found))
    with pytest.raises(ConfigError, match="the outputs of these networks are not finite"):
        labelfx.reinforce([tmp_path / "run"], tmp_path / "out", views=1, top=2)
    assert not (tmp_path / "out").exists()


def test_what_is_left_is_spread_or_dropped():
    index, value = jnp.array([[2, 0]]), jnp.array([[0.5, 0.3]], jnp.float16)
    spread, zero = (np.exp(dense(index, value, 4, "class", fill)) for fill in ("spread", "zero"))
    np.testing.assert_allclose(spread, [[0.3, 0.1, 0.5, 0.1]], atol=1e-3)
    np.testing.assert_allclose(zero, [[0.375, 0, 0.625, 0]], atol=1e-3)
    more_than_all = dense(index, jnp.array([[0.9, 0.3]]), 4, "class", "spread")
    np.testing.assert_allclose(np.exp(more_than_all), [[0.25, 0, 0.75, 0]], atol=1e-6)
    several = jax.nn.sigmoid(dense(jnp.array([[1, 0]]), jnp.array([[1.0, 0.25]], jnp.float16), 2, "several", "spread"))
    np.testing.assert_allclose(several, [[0.25, 1]], atol=1e-3)


def test_a_step_sees_different_views_of_a_row(file, tmp_path, monkeypatch):
    seen = []
    real = Stored.drawn
    monkeypatch.setattr(Stored, "drawn", lambda self, rng, n: seen.append(real(self, rng, n)) or seen[-1])
    config = student(file)
    config["method"]["soft_labels"]["crops"] = 2
    config["method"]["mix"] = {"name": "selfmix", "alpha": 1.0}
    results = labelfx.train(config | {"evals": {"head": {}}}, tmp_path)
    assert results["training"]["compilations"] == 1
    views = np.concatenate(seen)
    assert views.shape[1] == 2 and (views[:, 0] != views[:, 1]).all() and set(views.ravel()) == {0, 1, 2}


def test_selfmix_mixes_views_of_one_image():
    mix = selfmix(alpha=1.0)(jax.random.key(0), 6, (8, 8, 1), crops=3)
    np.testing.assert_array_equal(mix.partner, [1, 2, 0, 4, 5, 3])
    np.testing.assert_allclose(mix.share, np.mean(mix.mask), rtol=1e-6)
    with pytest.raises(ValueError, match="selfmix mixes views of one image, of which a step has one"):
        selfmix(alpha=1.0)(jax.random.key(0), 6, (8, 8, 1))


def test_a_map_is_pooled_over_the_box():
    """A map of two halves: a view of one half has its class, one of both the mean."""
    cells = np.zeros((4, 4, 2), np.float32)
    cells[:, :2, 0], cells[:, 2:, 1] = 6, 6

    def at(top, left, height, width):
        box = [jnp.float32(x) for x in (top, left, height, width)]
        return jax.nn.softmax(pooled_at(Placement(*box, jnp.float32(0), jnp.bool(False)), cells, (8, 16)))

    assert at(0, 0, 8, 6)[0] > 0.9 and at(2, 10, 4, 6)[1] > 0.9
    np.testing.assert_allclose(at(0, 0, 8, 16), [0.5, 0.5], atol=1e-5)


def test_a_view_of_the_whole_picture_has_the_teachers_prediction(tmp_path):
    """Every class stored; half floats of probabilities are what is lost."""
    changes = {"model": RESNET, "labels": {"name": "all_labels"}, "steps": 0}
    labelfx.train(tiny("supervised", **changes), tmp_path / "teacher")
    about = labelfx.reinforce([tmp_path / "teacher"], tmp_path / "maps", top=10, maps=True)
    about, columns = opened(str(tmp_path / "maps"), "maps", 10, len(digits().train.inputs))
    index, value = (
        columns[f"soft_{name}"][np.arange(4)[:, None], np.zeros((4, 1), int)][:, 0] for name in ("index", "value")
    )
    height, width = about["grid"]
    cells = dense(jnp.asarray(index), jnp.asarray(value), 10, "class", "spread").reshape(4, height, width, 10)
    whole = Placement(*map(jnp.float32, (0, 0, 8, 8)), jnp.float32(0), jnp.bool(False))
    found = jax.nn.softmax(jnp.stack([pooled_at(whole, each, (8, 8)) for each in cells]))
    wanted = labelfx.load(tmp_path / "teacher").predict(digits().train.inputs[:4])
    np.testing.assert_allclose(found, wanted, atol=2e-3)

    config = tiny("distillation", model=MODEL, teacher=())
    config["method"]["soft_labels"] = {"name": "label_map", "file": str(tmp_path / "maps")}
    labelfx.train(config, tmp_path / "student")
    with pytest.raises(ConfigError, match="--maps: .*has no map|is not the mean over the places"):
        labelfx.reinforce([tmp_path / "student"], tmp_path / "other", top=10, maps=True)


def test_the_command(teachers, tmp_path, monkeypatch, capsys):
    runs = ",".join(map(str, teachers))
    monkeypatch.setattr("sys.argv", ["reinforce", f"--runs={runs}", f"--out={tmp_path}", "--views=1", "--top=2"])
    main()
    assert json.loads((tmp_path / "about.json").read_text())["whole"]
    assert "8 bytes a row" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["reinforce", "--runs=nowhere", f"--out={tmp_path}", "--views=1", "--top=2"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2 and capsys.readouterr().err.startswith("error: ")
