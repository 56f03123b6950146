"""`labelfx.derived.least_squares`: by loops in float64, what it leaves as it is, and what it is for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import assert_close
from test_symmetries import NETS, cycles, logits_of, network
from toys import assert_beats, trained, with_head

from labelfx.config import ConfigError
from labelfx.data.augment import to_float
from labelfx.data.sources import digits
from labelfx.derived import logits, recalibrate
from labelfx.derived.layers import layers_of
from labelfx.derived.least_squares import pleas
from labelfx.models import backbones
from labelfx.models.classifiers import linear
from labelfx.models.symmetries import groups, permute

AVERAGE = 1e9  # a ridge that leaves nothing to the rows: the blocks themselves


def built(config, classes):
    keywords = {key: value for key, value in config.items() if key != "name"}
    return with_head(getattr(backbones, config["name"])(**keywords), classes)


def pair(config, shape, classes=3):
    """Two networks in float64, and twelve rows for them."""
    rng = np.random.default_rng(3)
    like = network(config, shape, linear(classes))[1]

    def drawn(keys, x):
        return rng.normal(size=x.shape) if keys[-1].key in ("kernel", "bias") else rng.uniform(0.5, 1.5, x.shape)

    a, b = (jax.tree_util.tree_map_with_path(drawn, like) for _ in range(2))
    return a, b, rng.integers(0, 256, (12, *shape[1:]), np.uint8)


def seen(z, kernel):
    """What units see, by loops: [rows, positions of the kernel, channels] for each place of the output."""
    if kernel.ndim == 2:
        return [z.reshape(len(z), -1, z.shape[-1])]
    height, width, stride = *z.shape[1:3], 2 if max(z.shape[1:3]) > 4 else 1
    places = []
    for top in range(-1, height - 1, stride):
        for left in range(-1, width - 1, stride):
            patch = np.zeros((len(z), 9, z.shape[-1]))
            for row, column in itertools.product(range(3), range(3)):
                if 0 <= top + row < height and 0 <= left + column < width:
                    patch[:, 3 * row + column] = z[:, top + row, left + column]
            places.append(patch)
    return places


def walk(variables, layers, z):
    """Of each layer what it takes, its kernel as [positions, channels, units], its bias or None, and what it makes,
    [places of the output, rows, units]."""
    found = []
    params, stats = variables["params"], variables.get("batch_stats", {}).get("backbone", {})
    for i, name in enumerate(layers):
        layer = params["backbone" if i < len(layers) - 1 else "head"][name]
        patches, units = seen(z, layer["kernel"]), layer["kernel"].shape[-1]
        kernel = layer["kernel"].reshape(patches[0].shape[1], z.shape[-1], units)
        made = np.array([np.einsum("npc,pcu->nu", patch, kernel) + layer.get("bias", 0.0) for patch in patches])
        found.append((z, patches, kernel, layer.get("bias"), made))
        y = made
        if name.startswith("Conv"):
            norm, kept = params["backbone"][f"BatchNorm_{i}"], stats[f"BatchNorm_{i}"]
            y = (y - kept["mean"]) / np.sqrt(kept["var"] + 1e-5) * norm["scale"] + norm["bias"]
            side = [-(-n // (2 if max(z.shape[1:3]) > 4 else 1)) for n in z.shape[1:3]]
            z = np.maximum(np.moveaxis(y, 0, 1).reshape(len(z), *side, units), 0)
        else:
            z = np.maximum(y[0], 0)
    return found


def by_loops(a, b, layers, rows, stayed, ridge):
    """Kernels and biases of the merged network, with units listed as ("both", i, j), ("a", i, None), ("b", None, j)."""
    walks = [walk(variables, layers, rows) for variables in (a, b)]
    listed = [[("both", i, i) for i in range(rows.shape[-1])]]
    for stay, (z_a, *_), (z_b, *_) in zip(stayed, walks[0][1:], walks[1][1:], strict=True):
        left, right = z_a.reshape(-1, z_a.shape[-1]), z_b.reshape(-1, z_b.shape[-1])
        units = range(left.shape[1])
        with np.errstate(invalid="ignore"):  # of units that never change
            agree = np.nan_to_num([[np.corrcoef(left[:, i], right[:, j])[0, 1] for j in units] for i in units])
        mates = max(itertools.permutations(units), key=lambda order: sum(agree[i, j] for i, j in enumerate(order)))
        pairs = sorted(enumerate(mates), key=lambda pair: -agree[pair])
        merged, own = sorted(pairs[: len(pairs) - stay]), sorted(pairs[len(pairs) - stay :])
        both = [("both", i, j) for i, j in merged]
        listed.append([*both, *(("a", i, None) for i, _ in own), *(("b", None, j) for _, j in own)])
    listed.append([("both", i, i) for i in range(walks[0][-1][-1].shape[-1])])

    def value(kind, x, y):
        return {"both": (x + y) / 2, "a": x, "b": y}[kind]

    found = []
    for i, (of_a, of_b) in enumerate(zip(*walks, strict=True)):
        positions, (kernel_a, kernel_b) = range(of_a[2].shape[0]), (of_a[2], of_b[2])
        before, after = listed[i], listed[i + 1]
        start = np.zeros((len(positions), len(before), len(after)))
        for p, (n, (kind, *ins)), (m, (made, *outs)) in itertools.product(positions, *map(enumerate, (before, after))):
            x = kernel_a[p, ins[0], outs[0]] if kind != "b" and made != "b" else 0.0
            y = kernel_b[p, ins[1], outs[1]] if kind != "a" and made != "a" else 0.0
            start[p, n, m] = value(made, x, y)
        start = start.reshape(-1, len(after))
        columns = []
        for patch_a, patch_b in zip(of_a[1], of_b[1], strict=True):
            for p in positions:
                columns += [
                    value(k, patch_a[:, p, 0 if m is None else m], patch_b[:, p, 0 if n is None else n])
                    for k, m, n in before
                ]
        z = np.array(columns).reshape(len(of_a[1]), -1, len(rows)).transpose(0, 2, 1).reshape(-1, len(start))
        targets = [
            value(k, of_a[4][..., 0 if m is None else m], of_b[4][..., 0 if n is None else n]) for k, m, n in after
        ]
        y = np.array(targets).reshape(len(after), -1).T
        if of_a[3] is not None:
            z = np.concatenate([z, np.ones((len(z), 1))], 1)
            bias = [value(k, of_a[3][0 if m is None else m], of_b[3][0 if n is None else n]) for k, m, n in after]
            start = np.concatenate([start, [bias]])
        weight = np.sqrt(ridge * np.sum(z**2) / z.shape[1])
        stacked = np.concatenate([z, weight * np.eye(z.shape[1])])
        found.append(np.linalg.lstsq(stacked, np.concatenate([y, weight * start]), rcond=None)[0])
    return found


@pytest.mark.parametrize(
    ("config", "shape", "keep", "stayed"),
    [
        (dict(name="mlp", hidden=(4, 3), dtype="float32"), (2, 2, 2, 3), 0.5, (2, 2)),
        (dict(name="mlp", hidden=(4, 3), dtype="float32"), (2, 2, 2, 3), 0.0, (0, 0)),
        (dict(name="conv3", width=1, dtype="float32"), (2, 6, 3, 2), 0.6, (1, 2, 4)),
        (dict(name="conv3", width=1, dtype="float32"), (2, 6, 3, 2), 0.4, (0, 0, 0)),
    ],
)
def test_by_loops(config, shape, keep, stayed):
    a, b, inputs = pair(config, shape)
    names = [*(f"{'Dense' if config['name'] == 'mlp' else 'Conv'}_{i}" for i in range(len(stayed))), "Dense_0"]
    rows = 2 * np.asarray(to_float(jnp.asarray(inputs)), np.float64) - 1
    for ridge in (1e-4, 0.3):
        found, model, said = pleas(config, a, b, inputs, keep=keep, ridge=ridge)
        assert [row["stayed"] for row in said] == [*stayed, 0]
        for i, (name, wanted) in enumerate(zip(names, by_loops(a, b, names, rows, stayed, ridge), strict=True)):
            layer = found["params"]["backbone" if i < len(stayed) else "head"][name]
            size = np.prod(layer["kernel"].shape[:-1])
            assert_close(layer["kernel"].reshape(size, -1), wanted[:size], rtol=1e-10)
            if "bias" in layer:
                assert_close(layer["bias"], wanted[size], rtol=1e-10)
    assert {**model, **config} != model or not any(stayed)


@pytest.mark.parametrize("name", ["mlp", "conv3"])
def test_side_by_side_two_networks_are_their_mean(name):
    """Where every unit stays, exactly, of rows that it was not solved for too; normalised by their own statistics."""
    config, shape = NETS[name]
    net, a, x = network(config, shape, linear(3))
    b = jax.tree.map(lambda leaf: np.random.default_rng(leaf.size).permutation(leaf.ravel()).reshape(leaf.shape), a)
    rows = np.random.default_rng(0).integers(0, 256, (3, *shape[1:]), np.uint8)  # far fewer than features
    found, wider, said = pleas(config, a, b, rows, keep=1.0, ridge=1e-4)
    mean = (logits_of(net)(a, x) + logits_of(net)(b, x)) / 2
    np.testing.assert_allclose(logits_of(built(wider, 3))(found, x), mean, atol=1e-4 * np.ptp(mean))
    assert [2 * row["stayed"] for row in said] == [*(row["units"] for row in said[:-1]), 0]
    if name == "conv3":
        anew = [
            recalibrate(each, variables, rows) for each, variables in ((net, a), (net, b), (built(wider, 3), found))
        ]
        left, right, both = (logits_of(each)(v, x) for each, v in zip((net, net, built(wider, 3)), anew, strict=True))
        np.testing.assert_allclose(both, (left + right) / 2, atol=1e-4 * np.ptp(left))


@pytest.mark.parametrize("name", ["mlp", "conv3"])
def test_a_copy_with_its_units_in_another_order_is_merged_into_the_network(name):
    config, shape = NETS[name]
    net, a, x = network(config, shape, linear(3))
    b = permute(groups(config), a, cycles(groups(config), a))
    rows = np.random.default_rng(0).integers(0, 256, (64, *shape[1:]), np.uint8)
    found, wider, said = pleas(config, a, b, rows, keep=0.0, ridge=1e-4)
    assert wider == config and max(row["solved"] for row in said) < 1e-10
    expected = logits_of(net)(a, x)
    np.testing.assert_allclose(logits_of(net)(found, x), expected, atol=1e-5 * np.ptp(expected))


def experts(net, seed):
    """Networks of two seeds that know 700 digits, one those below 5 and one the others."""
    train = digits().train
    rows, labels = train.inputs[:700], train.labels[:700]
    return [trained(net, rows[part], labels[part], 2 * seed + i) for i, part in enumerate((labels < 5, labels >= 5))]


@pytest.mark.slow
def test_experts_of_half_the_classes_each():
    """Merged in the width of one, the network that is solved for names digits of both halves where the mean of matched
    weights does not; half as wide again it is nearer to the mean of their logits."""
    config, test = dict(name="mlp", hidden=(64, 64), dtype="float32"), digits().test
    net, found = built(config, 10), {"one": [], "mean": [], "solved": [], "half kept": [], "logits": []}
    for seed in range(3):
        a, b = experts(net, seed)
        rows = digits().train.inputs[:700]
        every = {"one": (config, a)}
        for name, keep, ridge in (("mean", 0.0, AVERAGE), ("solved", 0.0, 1e-2), ("half kept", 0.5, 1e-2)):
            variables, wider, _ = pleas(config, a, b, rows, keep=keep, ridge=ridge)
            every[name] = wider, variables
        outputs = {name: logits(built(wider, 10), variables, test.inputs) for name, (wider, variables) in every.items()}
        outputs["logits"] = (outputs["one"] + logits(net, b, test.inputs)) / 2
        for name, of_rows in outputs.items():
            found[name].append(np.mean(of_rows.argmax(1) == test.labels))
        errors = [np.mean((outputs[name] - outputs["logits"]) ** 2) for name in ("mean", "solved", "half kept")]
        assert errors == sorted(errors, reverse=True)
    print({name: np.round(accuracy, 3) for name, accuracy in found.items()})
    assert_beats(np.array(found["solved"]) - 0.1, found["mean"])
    assert_beats(found["solved"], found["one"])


def test_other_backbones_are_refused():
    with pytest.raises(
        ConfigError, match=r"^config.model.name = 'vit': its layers are not solved for; allowed: conv3, mlp"
    ):
        layers_of(dict(name="vit"))
