"""Dense targets: maps of features, heads that read them, labels that move with their pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_consistency
from toys import adam, assert_beats

from labelfx.data import augment
from labelfx.data.augment import to_float
from labelfx.evals import features, head_outputs
from labelfx.evals.dense import mean_iou
from labelfx.methods.from_labels.supervised import supervised
from labelfx.methods.semi_supervised.consistency import consistency
from labelfx.methods.targets import pseudo_labels
from labelfx.models import Model, backbone, backbones, classifiers, from_linen, part, pooled, stack
from labelfx.objectives.classification import cross_entropy

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
TEXTS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [4, 5, 6, 7]], np.int32)
# The networks of the room, as small as they can be, and the shape of their maps.
MAPS = {
    "conv3": (lambda outputs: backbones._Conv3(2, 1, None, outputs), IMAGES, (4, 4, 8)),
    "resnet": (
        lambda outputs: backbones._ResNet((1, 1), False, "cifar", 2, 1, False, None, outputs),
        IMAGES,
        (4, 4, 4),
    ),
    "wrn": (lambda outputs: backbones._Wrn(1, 1, 0.5, 1, False, None, outputs), IMAGES, (2, 2, 64)),
    "vit": (lambda outputs: backbones._Vit(1, 8, 2, 4, 0.5, False, None, outputs), IMAGES, (2, 2, 8)),
    "mean_pool": (lambda outputs: backbones._MeanPool(9, 4, 0.5, None, outputs), TEXTS, (4, 4)),
    "transformer": (lambda outputs: backbones._Transformer(9, 1, 4, 2, 0.5, False, None, outputs), TEXTS, (4, 4)),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_has_the_variables_of_the_features_and_pools_to_them(name):
    network, rows, shape = MAPS[name]
    plain, maps = (from_linen(network(outputs)) for outputs in ("features", "map"))
    x, key = to_float(jnp.asarray(rows)), jax.random.key(0)
    assert jax.eval_shape(plain.init, key, x) == jax.eval_shape(maps.init, key, x)
    variables = jax.jit(plain.init)(key, x)
    wanted, found = (jax.jit(lambda v, x, of=of: of.apply(v, x, train=False)[0])(variables, x) for of in (plain, maps))
    assert found.shape == (len(rows), *shape)
    if name == "conv3":  # which has no pooling of its own
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
        wanted = found.mean((1, 2))
    np.testing.assert_allclose(pooled(found, x), wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features(maps, variables, rows, batch=2), wanted, rtol=1e-5, atol=1e-6)
    if rows is TEXTS:
        assert not np.any(np.asarray(found)[TEXTS == 0])


@pytest.mark.parametrize(
    ("name", "keywords", "shape"),
    [
        ("conv3", dict(width=2), (4, 4, 8)),
        ("resnet18", dict(stem="cifar", width=2), (1, 1, 16)),
        ("resnet50", dict(stem="cifar", width=2), (1, 1, 64)),
        ("wrn28", dict(width=1, dropout=0.5), (2, 2, 64)),
        ("vit", dict(size="ti", patch=4, dropout=0.5), (2, 2, 192)),
        ("mean_pool", dict(vocab_size=9, width=4, dropout=0.5), (4, 4)),
        ("transformer", dict(vocab_size=9, layers=1, width=4, heads=2, dropout=0.5), (4, 4)),
    ],
)
def test_every_backbone_with_positions_gives_a_map(name, keywords, shape):
    model = getattr(backbones, name)(**keywords, outputs="map", dtype="bfloat16")
    x = to_float(jnp.asarray(TEXTS if "vocab_size" in keywords else IMAGES))
    found = jax.eval_shape(lambda x: model.apply(model.init(jax.random.key(0), x), x, train=False)[0], x)
    assert (found.shape, found.dtype) == ((len(x), *shape), jnp.float32)


def test_the_dense_head_is_a_linear_map_of_each_position_resized():
    head = classifiers.dense(3, size=(8, 6))
    maps = np.random.default_rng(1).normal(size=(2, 4, 3, 5)).astype(np.float32)
    variables = head.init(jax.random.key(0), maps)
    found, state = jax.jit(lambda v, x: head.apply(v, x, train=True))(variables, maps)
    kernel, bias = (np.asarray(variables["params"]["Dense_0"][name], np.float64) for name in ("kernel", "bias"))
    expected = np.zeros((2, 8, 6, 3))
    for b, i, j in np.ndindex(2, 8, 6):
        y, x = np.clip((i + 0.5) / 2 - 0.5, 0, 3), np.clip((j + 0.5) / 2 - 0.5, 0, 2)
        for row, column in np.ndindex(4, 3):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            expected[b, i, j] += weight * (maps[b, row, column] @ kernel + bias)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not state
    with pytest.raises(ValueError, match=r"size = \(8,\): must be \(H, W\)"):
        classifiers.dense(3, size=(8,))
    with pytest.raises(ValueError, match=r"dense reads a map \[B, H, W, F\], not \[2, 12\]; take config.model.outputs"):
        head.init(jax.random.key(0), np.zeros((2, 12), np.float32))


def test_a_head_reads_the_map_of_a_batch_at_a_time():
    model = backbones.conv3(width=2, outputs="map", dtype="float32")
    network = stack(backbone=model, head=classifiers.dense(3, size=(8, 8)))
    variables = network.init(jax.random.key(0), to_float(jnp.asarray(IMAGES)))
    whole = network.apply(variables, to_float(jnp.asarray(IMAGES)), train=False)[0]["head"]
    head = classifiers.dense(3, size=(8, 8)), part(variables, "head")
    found = head_outputs(model, backbone(variables), *head, IMAGES, batch=2)
    assert found.shape == (5, 8, 8, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, whole, atol=1e-5)


def rows_and_columns(shape):
    """Which pixel each pixel is, as labels and as an image of two channels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (shape[1] * y + x).astype(np.int32), (np.stack([y, x], -1) / 16).astype(np.float32)


@pytest.mark.parametrize("padding", [0, 3])
def test_labels_move_with_crop_flip_to_the_pixel(padding):
    labels, _ = rows_and_columns((7, 9))
    shift = augment.crop_flip(padding=padding, flip=True)
    images = np.repeat((labels / 63)[None, ..., None].astype(np.float32), 16, 0)
    views, moved = jax.jit(lambda rng, columns: augment.augmented(shift, rng, columns))(
        jax.random.key(0), {"input": images, "label": np.repeat(labels[None], 16, 0), "index": np.arange(16)}
    )
    np.testing.assert_array_equal(np.round(63 * views[..., 0]).astype(np.int32), moved["label"])
    np.testing.assert_array_equal(views, shift(jax.random.key(0), images))
    assert moved["label"].dtype == np.int32 and moved["index"].tolist() == list(range(16))
    assert len(np.unique(moved["label"], axis=0)) > 1 + 10 * (padding > 0)


@pytest.mark.parametrize(
    "geometry",
    [
        augment.small_grey(min_scale=0.3, max_rotation=30.0, jitter_strength=0.0, cutout=0.0),
        augment.Augmentation(  # simclr's, of two channels
            lambda rng, at, image: jnp.where(
                at.flip, augment.resized_crop(image, *at[:4])[:, ::-1], augment.resized_crop(image, *at[:4])
            ),
            augment.simclr(min_scale=0.3, flip=True, jitter_strength=0.0, grayscale=0.0, blur=0.0).draw,
        ),
    ],
)
def test_labels_are_those_of_the_nearest_pixel_of_the_picture(geometry):
    """On a picture of its own coordinates, but where two pixels are as near or the border is repeated."""
    labels, image = rows_and_columns((11, 12))
    columns = {"label": np.repeat(labels[None], 32, 0)}
    moved, coordinates = [], []
    for channel in range(2):
        inputs = np.repeat(image[None, ..., channel, None], 32, 0)
        views, found = jax.jit(lambda rng, c: augment.augmented(geometry, rng, c))(
            jax.random.key(1), columns | {"input": inputs}
        )
        moved.append(np.asarray(found["label"]))
        coordinates.append(16 * np.asarray(views, np.float64)[..., 0])
    np.testing.assert_array_equal(*moved)
    y, x = coordinates
    inside = (y > 0.01) & (y < 9.99) & (x > 0.01) & (x < 10.99)
    clear = inside & (abs(y % 1 - 0.5) > 0.01) & (abs(x % 1 - 0.5) > 0.01)
    assert clear.mean() > 0.5
    off = (12 * np.round(y) + np.round(x)).astype(int) != moved[0]
    assert off[clear].mean() < 0.02, off[clear].mean()  # a turned border may reach in
    assert len({row.tobytes() for row in moved[0]}) > 24


def test_what_cannot_say_where_pixels_come_from_has_no_dense_labels():
    columns = {"input": IMAGES, "label": np.zeros((5, 8, 8), np.int32)}
    keys = dict(padding=1, flip=False, operations=1, magnitude=1.0, probability=0.5, cutout=0.0)
    for unplaced in (augment.randaugment(**keys), lambda rng, images: images):
        with pytest.raises(
            ValueError, match="does not say where its pixels come from has no dense labels, no label map; take ident"
        ):
            augment.augmented(unplaced, jax.random.key(0), columns)
        with pytest.raises(ValueError, match="does not say where its pixels come from"):
            augment.restyled(unplaced, jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match=r"dense labels are \[5, 4, 4\], images \[5, 8, 8, 3\]; must have their pix"):
        augment.augmented(augment.identity(), jax.random.key(0), columns | {"label": np.zeros((5, 4, 4), np.int32)})
    views, same = augment.augmented(augment.noise(scale=0.1), jax.random.key(0), columns)
    np.testing.assert_array_equal(same["label"], columns["label"])
    assert views.shape == IMAGES.shape


def test_a_restyled_view_leaves_pixels_where_they_are():
    images = np.full((4, 8, 8, 3), 0.5, np.float32) + np.linspace(0, 0.1, 8, dtype=np.float32)[:, None, None]
    colours = augment.simclr(min_scale=0.1, flip=True, jitter_strength=0.5, grayscale=0.0, blur=0.0)
    views = np.asarray(augment.restyled(colours, jax.random.key(0), images))
    assert np.abs(np.diff(views, axis=2)).max() < 1e-6 < np.abs(views - images).max()  # rows are still of one colour
    np.testing.assert_array_equal(augment.restyled(augment.identity(), jax.random.key(0), images), images)


def per_pixel(width):
    """A network that sees a pixel and its eight neighbours, at the pixels' own resolution."""

    def init(rng, x):
        return {"params": {"kernel": 0.3 * jax.random.normal(rng, (3, 3, x.shape[-1], width))}}

    def apply(variables, x, *, train, rng=None):
        kernel = variables["params"]["kernel"].astype(x.dtype)
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)), {}

    return Model(init, apply)


def learnt(moves, seed, steps=60):
    """Pixel accuracy on stripes whose two classes differ by which neighbour is brighter, after training on views."""
    size, rng = 12, np.random.default_rng(seed)
    edges = np.sort(rng.integers(0, size, (48, 2)), 1)
    column = np.arange(size)
    inside = (column >= edges[:, :1]) & (column < edges[:, 1:])
    labels = np.repeat(inside[:, None], size, 1).astype(np.int32)
    images = np.where(labels[..., None] > 0, 0.8, 0.2).astype(np.float32) + 0.05 * rng.normal(size=(48, size, size, 1))
    images = images.astype(np.float32)
    network = stack(backbone=per_pixel(8), head=classifiers.dense(2, size=(size, size)))
    shift = augment.crop_flip(padding=4, flip=True)
    if not moves:  # as if nothing had been said of where pixels went
        shift = dataclasses.replace(
            shift, draw=lambda rng, image: None, apply=lambda rng, at, image, of=shift: _view(of, rng, image)
        )
    objective = functools.partial(cross_entropy, label_smoothing=0.0)
    method = supervised(network, adam(0.03), augment=shift, objective=objective)
    batch = {"labelled": {"input": images[:32], "label": labels[:32]}}
    state = jax.jit(method.init)(jax.random.key(seed), batch)
    step = jax.jit(method.step)
    for i in range(steps):
        state, _ = step(state, batch, jax.random.fold_in(jax.random.key(seed), i))
    logits = network.apply(method.variables(state), images[32:], train=False)[0]["head"]
    return mean_iou(np.asarray(logits), labels[32:], 2)["mean_iou"]


def _view(of, rng, image):
    return of.apply(rng, of.draw(rng, image), image)


def test_labels_that_stay_where_their_pixels_were_teach_nothing():
    moved, left = ([learnt(moves, seed) for seed in range(5)] for moves in (True, False))
    print(moved, left)
    assert min(moved) > 0.9
    assert_beats(moved, left)
    assert np.mean(moved) - np.mean(left) > 0.1


@pytest.mark.parametrize("rule", ["fixmatch", "uda", "freematch", "softmatch"])
def test_consistency_of_pixels_is_that_of_rows(rule):
    """With a network that sees one pixel, dense labels are as many images of one pixel."""
    rng, settings = np.random.default_rng(0), test_consistency.RULES[rule]
    images = {name: rng.normal(size=(3, 2, 4, 3)).astype(np.float32) for name in ("labelled", "unlabelled")}
    labels = {name: rng.integers(-1, 3, (3, 2, 4)).astype(np.int32) for name in images}
    weak = augment.Augmentation(lambda rng, at, image: image * 0.9, lambda rng, image: None)
    strong = augment.Augmentation(lambda rng, at, image: image * 0.8 + 0.05, lambda rng, image: None)
    kernel = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    backbone = Model(
        lambda rng, x: {"params": {"w": kernel}}, lambda v, x, *, train, rng=None: (x @ v["params"]["w"], {})
    )

    def batch(of):
        return {
            "labelled": {"input": of(images["labelled"]), "label": of(labels["labelled"])},
            "unlabelled": {"input": of(images["unlabelled"]), "index": np.arange(len(of(labels["unlabelled"])))},
            "audit": {"unlabelled": {"label": of(labels["unlabelled"])}},
        }

    def run(network, batch, views):
        method = consistency(
            network,
            optax.sgd(0.5),
            8,
            3,
            24,
            weak=views[0],
            strong=views[1],
            pseudo_labels=getattr(pseudo_labels, rule)(**settings),
            alignment=0.9,
            unlabelled_weight=1.0,
            tsa="linear",
            ema=0.9,
        )
        state = method.init(jax.random.key(0), batch)
        for i in range(3):
            state, metrics = jax.jit(method.step)(state, batch, jax.random.key(i))
        return method.variables(state), metrics

    head = classifiers.dense(3, size=(2, 4))
    pixels = lambda x: x.reshape(24, *x.shape[3:])  # noqa: E731
    dense = run(stack(backbone=backbone, head=head), batch(lambda x: x), (weak, strong))
    flat = stack(backbone=backbone, head=classifiers.linear(3))
    # a strong view of rows is of the images themselves: of the weak one where labels are dense
    again = augment.Augmentation(lambda rng, at, image: image * 0.9 * 0.8 + 0.05, lambda rng, image: None)
    rows = run(flat, batch(pixels), (weak, again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), dense, rows)
    assert settings and 0 < float(dense[1]["acceptance"]) <= 1
