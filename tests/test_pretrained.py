"""Encoders from files: equal to the libraries' own by files of `experiments/torch_encoders.py`, and what is refused."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file, save_file

from experiments import encoders
from labelfx.models import depth, pretrained
from labelfx.models.pretrained import convnext, layers, vit

GOLDEN = Path(__file__).parent / "pretrained"
FOLDERS = sorted(each.parent.name for each in GOLDEN.glob("*/features.npz"))
KNOBS = {"norm": "stored", "norm_groups": 1, "outputs": "features", "dtype": None}
gelu = jax.nn.gelu


def images(size: int) -> np.ndarray:
    with np.load(GOLDEN / "images.npz") as file:
        found = file["images"][:, :size, :size]
    return (found / np.float32(255) - np.float32(0.5)) / np.float32(0.25)


def expected(folder: str) -> dict[int, np.ndarray]:
    with np.load(GOLDEN / folder / "features.npz") as file:
        return {int(name.removeprefix("of_")): file[name] for name in file}


def error(description: dict[str, Any], weights: Any, size: int, features: np.ndarray) -> float:
    network = pretrained.network(description, **KNOBS)
    found = jax.jit(lambda weights, x: network.apply(weights, x, train=False))(weights, images(size))
    assert found.dtype == jnp.float32
    return float(np.abs(found - features).max() / np.abs(features).max())


@pytest.mark.parametrize("folder", FOLDERS)
def test_features_are_those_of_the_library_at_the_files_size_and_at_another(folder: str) -> None:
    file = pretrained.read(GOLDEN / folder)
    weights = file.weights()
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {np.dtype(np.float32)}
    for size, features in expected(folder).items():
        assert error(file.description, weights, size, features) < 1e-5, size
    json.dumps(file.description)


def changed(weights: Any, leaf: str, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """`weights` with a change of those whose path ends with `leaf`."""
    touched = []

    def each(path, value):
        if not "/".join(key.key for key in path).endswith(leaf):
            return value
        touched.append(path)
        return change(value)

    weights = jax.tree_util.tree_map_with_path(each, weights)
    assert touched
    return weights


def without(architecture: dict, weights: Any, patch: pytest.MonkeyPatch, **facts: Any) -> Any:
    """Facts of the architecture changed."""
    assert all(architecture[key] != facts[key] for key in facts)
    architecture.update(facts)
    return weights


def weighted(leaf: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    return lambda architecture, weights, patch: changed(weights, leaf, change)


def facts(**changes: Any) -> Callable[..., Any]:
    return lambda architecture, weights, patch: without(architecture, weights, patch, **changes)


def patched(module: Any, name: str, value: Any) -> Callable[..., Any]:
    def mutate(architecture, weights, patch):
        patch.setattr(module, name, value)
        return weights

    return mutate


def thirds(value: np.ndarray) -> np.ndarray:
    return np.roll(value, value.shape[-1] // 3, -1)


def halves(value: np.ndarray) -> np.ndarray:
    return np.roll(value, value.shape[-1] // 2, -1)


MUTATIONS: list[tuple[str, str, Callable[..., Any]]] = [
    ("dinov2", "no LayerScale", facts(layer_scale=False)),
    ("dinov2", "GELU of tanh", facts(act="gelu_tanh")),
    ("dinov2", "epsilon", facts(epsilon=1e-5)),
    ("dinov2", "no antialias", facts(antialias=False)),
    ("dinov2", "order of q, k and v", weighted("attn.qkv/kernel", thirds)),
    ("dinov2", "the class token's position last", weighted("pos_embed", lambda value: np.roll(value, -1, 1))),
    ("dinov2", "mean of the patches", facts(pool="avg")),
    ("dinov2", "heads", facts(heads=3)),
    ("dinov2_registers", "no registers", facts(registers=None)),
    ("dinov2_giant", "SwiGLU's halves", weighted("mlp.fc1/kernel", halves)),
    ("dinov2_giant", "GELU for its gate", facts(act="gelu")),
    ("hub_dinov2", "antialias", facts(antialias=True)),
    ("hub_dinov2_registers", "no antialias", facts(antialias=False)),
    ("hub_vit", "epsilon", facts(epsilon=1e-6)),
    ("siglip", "mean of the patches", facts(pool="avg")),
    ("siglip", "the pool's own residual layer", weighted("attn_pool.mlp.fc2/kernel", np.zeros_like)),
    ("hub_siglip", "exact GELU", facts(act="gelu")),
    ("clip", "no normalisation first", facts(norm_pre=False)),
    ("clip_quickgelu", "exact GELU", facts(act="gelu")),
    ("hub_clip", "exact GELU", facts(act="gelu")),
    ("dinov3", "no rotations", facts(rope=0.0)),
    ("dinov3", "rotations of other periods", facts(rope=10000.0)),
    ("dinov3", "class token", facts(pool="token")),
    ("dinov3_biased", "no bias of q and v", facts(qkv_bias="")),
    ("tf_efficientnet_lite0", "PyTorch's padding", facts(same=False)),
    ("tf_efficientnet_lite0", "epsilon", facts(epsilon=1e-5)),
    ("efficientnet_b0", "TensorFlow's padding", facts(same=True)),
    ("resnet18", "TensorFlow's padding", patched(layers, "_padding", lambda *given: "SAME")),
    ("convnext_tiny", "GELU of tanh", patched(jax.nn, "gelu", lambda x, approximate: gelu(x, True))),
    ("convnext_tiny", "epsilon", patched(convnext, "EPSILON", 1e-5)),
    ("convnext_tiny", "no LayerScale", weighted("gamma", np.ones_like)),
]


@pytest.mark.parametrize(("folder", "what", "mutate"), MUTATIONS, ids=[f"{each[0]}: {each[1]}" for each in MUTATIONS])
def test_parity_tells_when_a_fact_is_wrong(
    folder: str, what: str, mutate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pretrained.read(GOLDEN / folder)
    weights = mutate(file.description["architecture"], file.weights(), monkeypatch)
    size, features = list(expected(folder).items())[-1]  # of another grid than the file's
    assert error(file.description, weights, size, features) > 1e-4


# Other libraries' names and what else their files hold.


def copy(folder: str, place: Path, rename: Callable[[dict[str, Any]], dict[str, Any]], **config: Any) -> Path:
    """A golden folder with tensors and keys of its configuration changed."""
    shutil.copytree(GOLDEN / folder, place)
    save_file(rename(load_file(place / "model.safetensors")), place / "model.safetensors")
    said = json.loads((place / "config.json").read_text()) | config
    (place / "config.json").write_text(json.dumps(said))
    return place


def same(place: Path, folder: str) -> str:
    """That a copy has the golden features; what was said of it."""
    file = pretrained.read(place)
    size, features = next(iter(expected(folder).items()))
    assert error(file.description, file.weights(), size, features) < 1e-5
    return file.said


def test_clips_image_tower_is_read_from_the_file_of_both(tmp_path: Path) -> None:
    def both(tensors):
        towers = {f"vision_model.{name}": value for name, value in tensors.items()}
        text = {"text_model.embeddings.token_embedding.weight": jnp.ones((3, 2)), "logit_scale": jnp.ones(())}
        return towers | text | {"visual_projection.weight": jnp.ones((2, 24))}

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2}
    place = copy("hub_clip", tmp_path / "clip", both, model_type="clip", vision_config=tower)
    said = same(place, "hub_clip")
    assert "39 of 42 tensors read, left out text_model.*, logit_scale, visual_projection.*" in said


def test_openais_names_of_clip(tmp_path: Path) -> None:
    within = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    others = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        "norm.": "ln_post.",
        "blocks": "transformer.resblocks",
        "attn.qkv.": "attn.in_proj_",
        **within,
    }

    def theirs(tensors):
        found = {}
        for name, value in tensors.items():
            for ours, other in others.items():
                if ours in name and not (ours == "norm." and "blocks" in name):
                    name = name.replace(ours, other)
            found[f"visual.{name}"] = jnp.squeeze(value) if "embedding" in name else value
        return found

    same(copy("clip_quickgelu", tmp_path / "clip", theirs), "clip_quickgelu")


def test_metas_names_of_dinov2_with_registers_and_a_position_of_the_class_token(tmp_path: Path) -> None:
    def theirs(tensors):
        tensors["register_tokens"] = tensors.pop("reg_token")
        own = jnp.zeros((1, 1, 24), tensors["pos_embed"].dtype)
        tensors["pos_embed"] = jnp.concatenate([own, tensors["pos_embed"]], 1)
        return tensors | {"mask_token": jnp.ones((1, 24))}

    assert "left out *mask_token" in same(copy("dinov2_registers", tmp_path / "meta", theirs), "dinov2_registers")


def test_metas_names_of_the_giants_gated_layers(tmp_path: Path) -> None:
    def theirs(tensors):
        return {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): tensors[name] for name in tensors}

    same(copy("dinov2_giant", tmp_path / "meta", theirs), "dinov2_giant")


def test_a_classifier_of_hugging_face_holds_its_encoder_under_a_name(tmp_path: Path) -> None:
    def classified(tensors):
        return {f"dinov2.{name}": tensors[name] for name in tensors} | {"classifier.weight": jnp.ones((5, 48))}

    assert "left out classifier.*, *mask_token" in same(copy("hub_dinov2", tmp_path / "net", classified), "hub_dinov2")


def test_a_classifier_is_left_out_and_size_and_licence_are_said(tmp_path: Path) -> None:
    def classified(tensors):
        return tensors | {"fc.weight": jnp.ones((5, 16)), "fc.bias": jnp.ones(5)}

    said = same(copy("resnet18", tmp_path / "net", classified), "resnet18")
    assert said == "75 of 92 tensors read, left out fc.*, *.num_batches_tracked; 0.1 MB, licence apache-2.0"


# Refusals: one line that names the file and what is wrong.


def refused(place: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        pretrained.read(place)
    message = str(caught.value)
    assert "\n" not in message and str(place) in message
    return message


LANCZOS = {"input_size": [3, 16, 16], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "lanczos"}


def less(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("folder", "change", "config", "line"),
    [
        ("vit", less("blocks.1.norm2.bias"), {}, "has no tensor 'blocks.1.norm2.bias', which vit needs"),
        ("vit", less("patch_embed.proj.weight"), {}, "has no tensor 'patch_embed.proj.weight'"),
        ("vit", less("patch_embed.proj.bias"), {}, "has no tensor 'patch_embed.proj.bias'"),
        ("dinov2_registers", less("reg_token"), {}, "has no tensor 'reg_token'"),
        ("hub_dinov2", less("encoder.layer.0.attention.attention.key.bias"), {}, "'encoder.layer.0.attention.atte"),
        ("vit", lambda found: found | {"blocks.0.ls1.gamma": jnp.ones(24)}, {}, "'blocks.0.ls1.gamma' has no place in"),
        ("vit", lambda found: found | {"norm.bias": jnp.ones(23)}, {}, "norm.bias [23]: of the wrong shape, vit has"),
        ("vit", lambda found: found | {"norm.bias": jnp.ones(())}, {}, "norm.bias []: of the wrong shape"),
        ("vit", lambda found: found | {"blocks.1.mlp.fc1.weight": jnp.ones(5)}, {}, "blocks.1.mlp.fc1.weight [5]"),
        ("vit", lambda found: found | {"blocks.0.mlp.fc2.weight": jnp.ones(5)}, {}, "fc2.weight [5]: of the wrong"),
        ("vit", lambda found: found | {"pos_embed": jnp.ones((1, 16, 24))}, {}, "16 positions are of no square grid"),
        ("vit", dict, {"model_args": {"depth": 3, "num_heads": 2}}, "has no tensor 'blocks.2."),
        ("vit", dict, {"model_args": {"qk_norm": True}}, "model_args.qk_norm of config.json is not one that labelfx"),
        ("vit", dict, {"global_pool": "max"}, "global_pool 'max' of config.json: must be 'token' or 'avg' or"),
        ("resnet18", dict, {"global_pool": "max"}, "global_pool 'max' of config.json: must be 'avg'"),
        ("vit", dict, {"pretrained_cfg": {}}, "config.json must say pretrained_cfg.input_size"),
        ("vit", dict, {"pretrained_cfg": LANCZOS}, "interpolation 'lanczos': must be 'bicubic' or 'bilinear'"),
        ("vit", dict, {"architecture": "vit_relpos_base_patch16_224"}, "vit_relpos_base_patch16_224 is no network"),
        ("hub_vit", dict, {"hidden_act": "relu"}, "hidden_act 'relu' of config.json: must be one of gelu"),
        ("hub_resnet", dict, {"downsample_in_bottleneck": True}, "downsample_in_first_stage must be false"),
        ("resnet18", less("layer4.0.conv1.weight"), {}, "has no tensor 'layer4.0.conv1.weight'"),
        ("convnext_tiny", less("stages.3.blocks.0.gamma"), {}, "has no tensor 'stages.3.blocks.0.gamma'"),
    ],
)  # fmt: skip
def test_another_network_is_refused(
    tmp_path: Path, folder: str, change: Callable[..., Any], config: dict[str, Any], line: str
) -> None:
    assert line in refused(copy(folder, tmp_path / "net", change, **config))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.safetensors")
    assert "has no model.safetensors" in refused(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"")
    assert "weights_only=True" in refused(tmp_path / "weights.pth")
    assert "weights_only=True" in refused(tmp_path)
    whole = (GOLDEN / "vit" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-5])
    assert "not a whole safetensors file" in refused(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    assert "config.json: no such file" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "not JSON" in refused(tmp_path)
    (tmp_path / "config.json").write_text((GOLDEN / "hub_vit" / "config.json").read_text())
    assert "preprocessor_config.json is missing" in refused(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert "preprocessor_config.json must say size" in refused(tmp_path)


def test_images_that_patches_do_not_cover_are_refused() -> None:
    network = pretrained.network(pretrained.read(GOLDEN / "vit").description, **KNOBS)
    with pytest.raises(ValueError, match="images of 18 x 18 pixels: the patch, 4, must divide a side"):
        jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 18, 18, 3)), train=False))


# Maps, training and formulas.


@pytest.mark.parametrize("folder", ["vit", "siglip", "dinov3", "resnet18", "convnext_tiny", "tf_efficientnet_lite0"])
def test_maps_take_the_same_variables_and_are_of_every_position(folder: str) -> None:
    file = pretrained.read(GOLDEN / folder)
    size, features = next(iter(expected(folder).items()))
    weights, x = file.weights(), jnp.asarray(images(size))
    network = pretrained.network(file.description, **KNOBS | {"outputs": "map"})
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=False))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, weights)
    found = jax.jit(lambda: network.apply(weights, x, train=False))()
    side = {"convnext_tiny": 1, "resnet18": 2, "tf_efficientnet_lite0": 2}.get(folder, 4)
    assert found.shape == (2, side, side, features.shape[-1])
    if folder not in ("vit", "siglip", "convnext_tiny"):
        np.testing.assert_allclose(found.mean((1, 2)), features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("folder", ["dinov3", "resnet18"])
def test_statistics_move_in_training_unless_they_are_stored_ones_and_bfloat16_computes(folder: str) -> None:
    file = pretrained.read(GOLDEN / folder)
    weights, x = file.weights(), jnp.asarray(images(16))

    def applied(**knobs):
        network = pretrained.network(file.description, **KNOBS | knobs)
        return jax.jit(lambda: network.apply(weights, x, train=True, mutable=["batch_stats"]))()

    stored, kept = applied()
    near, _ = applied(dtype=jnp.bfloat16)
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - stored).max() / np.abs(stored).max() < 0.1
    if folder == "resnet18":
        _, moved = applied(norm="batch")
        assert np.any(moved["batch_stats"]["bn1"]["mean"] != weights["batch_stats"]["bn1"]["mean"])
        np.testing.assert_array_equal(kept["batch_stats"]["bn1"]["mean"], weights["batch_stats"]["bn1"]["mean"])


@pytest.mark.parametrize(("size", "count"), [(7, 3), (5, 11), (4, 4)])
def test_the_cubic_matrix_is_keys_of_every_tap(size: int, count: int) -> None:
    def weight(d, a=-0.75):
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    expected = np.zeros((count, size))
    for row in range(count):
        at = (row + 0.5) * size / count - 0.5
        for tap in range(-3, size + 3):
            expected[row, min(max(tap, 0), size - 1)] += weight(at - tap)
    np.testing.assert_allclose(vit.cubic(size, count), expected, atol=1e-12)


def test_rotations_are_those_of_patch_centres_and_keep_lengths() -> None:
    cos, sin = vit.rotations(before=2, rows=2, columns=3, width=8, longest=100.0)
    for row in range(2):
        for column in range(3):
            for axis, place in enumerate((2 * (row + 0.5) / 2 - 1, 2 * (column + 0.5) / 3 - 1)):
                for i in range(2):
                    angle = 2 * np.pi * place / 100 ** (i / 2)
                    for half in (0, 4):
                        at = 2 + 3 * row + column, half + 2 * axis + i
                        np.testing.assert_allclose((cos[at], sin[at]), (np.cos(angle), np.sin(angle)), atol=1e-12)
    assert np.all(cos[:2] == 1) and np.all(sin[:2] == 0)
    # Scores depend on where patches are to one another: here both by one column.
    with jax.enable_x64(True):
        query, key = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).repeat(8, 2)
        turned = [
            np.asarray(vit._turned(jnp.asarray(x), cos, sin))[0, :, 0]
            for x in (query.swapaxes(1, 2), key.swapaxes(1, 2))
        ]
    scores = turned[0] @ turned[1].T
    np.testing.assert_allclose(scores[2, 3], scores[3, 4])
    assert abs(scores[2, 3] - scores[2, 4]) > 1e-3


def test_attention_by_loops() -> None:
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, 5, 6))
    with jax.enable_x64(True):
        found = vit.attention(*map(jnp.asarray, (query, key, value)), 2)
    for row in range(2):
        for head in (slice(0, 3), slice(3, 6)):
            for at in range(5):
                scores = np.array([query[row, at, head] @ key[row, other, head] / np.sqrt(3) for other in range(5)])
                weights = np.exp(scores) / np.exp(scores).sum()
                np.testing.assert_allclose(found[row, at, head], weights @ value[row, :, head])


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("size", "stride", "side"), [(1, 1, 5), (3, 1, 6), (3, 2, 6), (5, 2, 7)])
def test_convolutions_by_loops(size: int, stride: int, side: int, same: bool) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(2, side, side, 3))
    count = -(-side // stride) if same else (side + 2 * (size // 2) - size) // stride + 1
    before = max((count - 1) * stride + size - side, 0) // 2 if same else size // 2
    for module, shape in (
        (layers.Conv(4, size, stride, None, same, bias=True), (size, size, 3, 4)),
        (layers.Depthwise(size, stride, None, same, bias=True), (size, size, 1, 3)),
    ):
        kernel, bias = random.normal(size=shape), random.normal(size=shape[-1])
        expected = np.zeros((2, count, count, shape[-1])) + bias
        for row, column, i, j in np.ndindex(count, count, size, size):
            y, z = row * stride - before + i, column * stride - before + j
            if 0 <= y < side and 0 <= z < side:
                pixel = x[:, y, z]
                expected[:, row, column] += pixel @ kernel[i, j] if shape[2] == 3 else pixel * kernel[i, j, 0]
        with jax.enable_x64(True):
            weights = {"params": {"kernel": kernel, "bias": bias}}
            found, back = jax.vjp(functools.partial(module.apply, weights), x)
            cotangent = random.normal(size=expected.shape)
            (gradient,) = back(jnp.asarray(cotangent))
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_allclose((x * np.asarray(gradient)).sum(), ((expected - bias) * cotangent).sum())


def test_patches_and_layer_normalisation_by_loops() -> None:
    random = np.random.default_rng(0)
    x, kernel, bias = random.normal(size=(2, 5, 7, 3)), random.normal(size=(2, 2, 3, 4)), random.normal(size=4)
    scale = random.normal(size=4)
    with jax.enable_x64(True):
        cut = layers.Patches(4, 2, None).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(x))
        normed = layers.LayerNorm(1e-3).apply({"params": {"scale": scale, "bias": bias}}, cut)
    assert cut.shape == (2, 2, 3, 4)
    for row, column in np.ndindex(2, 3):
        window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = np.einsum("bijc,ijco->bo", window, kernel) + bias
        np.testing.assert_allclose(cut[:, row, column], expected, atol=1e-12)
        expected = (expected - expected.mean(1)[:, None]) / np.sqrt(expected.var(1)[:, None] + 1e-3) * scale + bias
        np.testing.assert_allclose(normed[:, row, column], expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(len(encoders.PARITY)), ids=[each[0] for each in encoders.PARITY])
def test_networks_of_full_size_are_those_of_the_library(at: int, tmp_path: Path) -> None:
    for name in encoders.LIBRARIES:
        pytest.importorskip(name)
    assert max(encoders.parity(*encoders.PARITY[at], tmp_path / "net")["errors"]) < 1e-5


def test_the_upper_layers_of_each_family():
    """The last third of the blocks and what lies on top, by parts of paths that no lower layer has."""
    described = {name: pretrained.read(GOLDEN / name).description for name in ("resnet18", "dinov2", "siglip")}
    assert pretrained.upper(described["resnet18"]) == ("layer4.0.",)
    assert pretrained.upper(described["dinov2"]) == ("blocks.1/",)
    assert {"attn_pool.qkv/", "blocks.1/"} < {*pretrained.upper(described["siglip"])}
    assert depth.upper_third(["embeddings/kernel", *(f"blocks.{i}/qkv/kernel" for i in range(12)), "norm/scale"]) == (
        "blocks.8/",
        "blocks.9/",
        "blocks.10/",
        "blocks.11/",
    )
    stages = [f"blocks.{stage}.{i}.conv_pw/kernel" for stage, count in enumerate((1, 2, 3)) for i in range(count)]
    assert depth.upper_third([*stages, "conv_head/kernel"]) == ("blocks.2.1.", "blocks.2.2.", "conv_head/")
