"""Vision transformers (Dosovitskiy et al. 2021) of timm's names, which are those of its `vision_transformer.py`:

plain and AugReg (Steiner et al. 2022), DINOv2 (Oquab et al. 2024) with registers (Darcet et al. 2024) or without, the
image towers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023), and DINOv3 (Siméoni et al. 2025), timm's
`eva.py`. Of Hugging Face: `vit`, `dinov2`, `dinov2_with_registers`, `clip`, `siglip`, their `_vision_model`s and
`dinov3_vit`. Meta's own names of DINOv2 and OpenAI's of CLIP are known too; what their files do not say, positions of
another grid among it, is as timm has it.

Features are what the library gives to a classifier: of timm `forward_head(pre_logits=True)`; of Hugging Face the
`pooler_output`, and of its `vit` the class token after the last normalisation, without the pooler's own layer.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from labelfx.models.layers import widen
from labelfx.models.pretrained import layers

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
}


class Architecture(NamedTuple):
    """How a network is built; the names of the keys are those of a description."""

    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    """Units of a block's hidden layer."""
    gated: bool
    """The hidden layer is one of twice as many, `act` of the first half times the second (SwiGLU, Shazeer 2020)."""
    act: str
    epsilon: float
    """Added to the variance by layer normalisation."""
    pool: str
    """"token": the class token; "avg": the mean of the patches; "map": attention of one learnt query."""
    class_token: bool
    registers: int | None
    """Tokens between that of the class and the patches; None where the network has none, 0 where it could."""
    grid: int
    """Positions a side that are stored; 0 where there are none."""
    class_position: bool
    """The class token has a position too."""
    antialias: bool
    """Positions of another grid are filtered first where it is smaller, cubic of a = -1/2 as timm; else cubic of
    a = -3/4, as PyTorch without `antialias`."""
    rope: float
    """The longest period of the rotations of queries and keys (Siméoni et al. 2025); 0 without them."""
    layer_scale: bool
    norm_pre: bool
    patch_bias: bool
    qkv_bias: str
    """Which of queries, keys and values have a bias: "qkv", "qv" or ""."""


_PLAIN = {
    "act": "gelu",
    "epsilon": 1e-6,
    "pool": "token",
    "class_token": True,
    "registers": False,
    "class_position": True,
    "antialias": True,
    "rope": 0.0,
    "layer_scale": False,
    "norm_pre": False,
    "patch_bias": True,
    "qkv_bias": "qkv",
}
_CLIP = _PLAIN | {"epsilon": 1e-5, "norm_pre": True, "patch_bias": False}
_SIGLIP = _PLAIN | {"pool": "map", "class_token": False, "class_position": False}
_DINO3 = _PLAIN | {"epsilon": 1e-5, "registers": True, "class_position": False, "rope": 100.0, "layer_scale": True}
_REGISTERS = {"layer_scale": True, "registers": True}
# timm's names after "vit_" -> what is no matter of shapes, the first group being the size.
KNOWN = {
    r"(tiny|small|base|large)_patch\d+_\d+": _PLAIN,
    r"(small|base|large|giant)_patch14_dinov2": _PLAIN | {"layer_scale": True},
    # timm's files have no position of the class token, Meta's do.
    r"(small|base|large|giant)_patch14_reg4_dinov2": _PLAIN | _REGISTERS | {"class_position": None},
    r"(base|large|huge)_patch\d+_clip_\d+": _CLIP,
    r"(base|large|huge)_patch\d+_clip_quickgelu_\d+": _CLIP | {"act": "quick_gelu"},
    r"(base(?=_patch16)|large(?!.*_512)|so400m(?=_patch14))_patch\d+_siglip_\d+": _SIGLIP,
    r"(base(?=_patch32)|large(?=.*_512)|so400m(?=_patch16))_patch\d+_siglip_\d+": _SIGLIP | {"act": "gelu_tanh"},
    r"(tiny|small|small_plus|base|large|huge_plus)_patch16_dinov3": _DINO3 | {"pool": "avg", "qkv_bias": ""},
    r"(tiny|small|small_plus|base|large|huge_plus)_patch16_dinov3_qkvb": _DINO3 | {"pool": "avg", "qkv_bias": "qv"},
}
SIZES = {  # blocks, heads
    "tiny": (12, 3),
    "small": (12, 6),
    "small_plus": (12, 6),
    "base": (12, 12),
    "large": (24, 16),
    "so400m": (27, 16),
    "huge": (32, 16),
    "huge_plus": (32, 20),
    "giant": (40, 24),
}
# Hugging Face's `model_type`, with its own defaults: configurations of two towers say only what differs.
_HUB = {"act": "gelu", "antialias": False}
HUGGING_FACE = {
    "vit": _PLAIN | _HUB | {"epsilon": 1e-12},
    "dinov2": _PLAIN | _HUB | {"layer_scale": True},
    "dinov2_with_registers": _PLAIN | _REGISTERS,
    "clip_vision_model": _CLIP | _HUB | {"act": "quick_gelu"},
    "siglip_vision_model": _SIGLIP | _HUB | {"act": "gelu_tanh"},
    "dinov3_vit": _DINO3 | _HUB | {"qkv_bias": "qv"},
}
ACTS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}


def recognise(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What a configuration of timm or of Hugging Face says, or None where it is of another network.

    Raises:
      ValueError: it says what no network here does, or a tensor is missing.
    """
    architecture = str(config.get("architecture", "")).partition(".")[0].removeprefix("vit_").removeprefix("deit_")
    arguments = config.get("model_args") or {}
    for pattern, facts in KNOWN.items():
        if match := re.fullmatch(pattern, architecture):
            depth, heads = SIZES[match[1]]
            known = ("depth", "num_heads", "embed_dim", "patch_size", "mlp_ratio")
            said = layers.of_timm(config, *known, pools=("token", "avg", "map"))
            pool = arguments.get("global_pool") or config.get("global_pool") or facts["pool"]
            sizes = {"depth": arguments.get("depth", depth), "heads": arguments.get("num_heads", heads)}
            return {"architecture": _architecture(shapes, facts | sizes | {"pool": pool}), **said}
    kind = str(config.get("model_type", ""))
    if kind in ("clip", "siglip"):  # two towers
        images = {key: config[key] for key in ("preprocessor",) if key in config}
        kind, config = f"{kind}_vision_model", config.get("vision_config", {}) | images
    if kind not in HUGGING_FACE:
        return None
    facts = HUGGING_FACE[kind]
    act = config.get("hidden_act", facts["act"])
    if act not in ACTS and act not in ACTS.values():
        raise ValueError(f"hidden_act {act!r} of config.json: must be one of {', '.join(ACTS)}")
    sizes = {
        "depth": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", 6 if kind == "dinov3_vit" else 12),
        "epsilon": config.get("layer_norm_eps", facts["epsilon"]),
        "act": ACTS.get(act, act),
        "rope": facts["rope"] and float(config.get("rope_theta", facts["rope"])),
    }
    return {"architecture": _architecture(shapes, facts | sizes), **layers.of_hugging_face(config)}


def _architecture(shapes, facts):
    called, _ = names(shapes)

    def shape(name, *axes):
        found = [layers.shape_of(each, shapes, *axes) for each in called(name)]
        return (sum(each[0] for each in found), *found[0][1:])

    width, _, _, patch = shape("patch_embed.proj.weight", 4)
    hidden = shape("blocks.0.mlp.fc2.weight", 2)[1]
    gated = shape("blocks.0.mlp.fc1.weight", 2)[0] == 2 * hidden
    stored = 0 if facts["rope"] else shape("pos_embed", 2, 3)[-2]
    of_class = facts["class_position"]
    of_class = math.isqrt(stored) ** 2 != stored if of_class is None else of_class
    grid = math.isqrt(max(stored - of_class, 0))
    if grid**2 + of_class != stored:
        raise ValueError(f"{stored} positions are of no square grid" + (" and a class token" if of_class else ""))
    seen = {"patch": patch, "width": width, "hidden": hidden, "gated": gated, "grid": grid, "class_position": of_class}
    seen |= {"act": "silu"} if gated else {}
    seen |= {"registers": shape("reg_token", 3)[1] if facts["registers"] else None}
    return Architecture(**facts | seen)._asdict()


def _blocks(block: str, table: Mapping[str, str]) -> dict[str, str]:
    return {f"blocks.#.{ours}": " ".join(f"{block}.#.{each}" for each in table[ours].split()) for ours in table}


# A tensor that only some files have -> what those call ours; where several are there, all hold.
ELSEWHERE = {
    "blocks.0.gamma_1": _blocks("blocks", {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}),  # timm's eva.py
    "blocks.0.mlp.fc1_g.weight": _blocks("blocks", {"mlp.fc1": "mlp.fc1_g mlp.fc1_x"}),
    "attn_pool.latent": {"attn_pool.qkv": "attn_pool.q attn_pool.kv"},
    "register_tokens": {"reg_token": "register_tokens"},  # Meta
    "blocks.0.mlp.w12.weight": _blocks("blocks", {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"}),
    "visual.conv1.weight": {  # OpenAI
        "cls_token": "visual.class_embedding",
        "pos_embed": "visual.positional_embedding",
        "patch_embed.proj": "visual.conv1",
        "norm_pre": "visual.ln_pre",
        "norm": "visual.ln_post",
        **_blocks(
            "visual.transformer.resblocks",
            {
                "norm1": "ln_1",
                "attn.qkv.weight": "attn.in_proj_weight",
                "attn.qkv.bias": "attn.in_proj_bias",
                "attn.proj": "attn.out_proj",
                "norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            },
        ),
    },
    "embeddings.cls_token": {  # Hugging Face
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
        **_blocks(
            "encoder.layer",
            {
                "norm1": "norm1",
                "attn.qkv": "attention.attention.query attention.attention.key attention.attention.value",
                "attn.proj": "attention.output.dense",
                "ls1.gamma": "layer_scale1.lambda1",
                "norm2": "norm2",
                "mlp.fc1": "mlp.fc1",
                "mlp.fc2": "mlp.fc2",
                "ls2.gamma": "layer_scale2.lambda1",
            },
        ),
    },
    "encoder.layer.0.mlp.weights_in.weight": _blocks(
        "encoder.layer", {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
    ),
    "encoder.layer.0.layernorm_before.weight": _blocks(
        "encoder.layer",
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        },
    ),
    "layer.0.attention.q_proj.weight": {
        "patch_embed.proj": "embeddings.patch_embeddings",
        "norm": "norm",
        **_blocks(
            "layer",
            {
                "norm1": "norm1",
                "attn.qkv": "attention.q_proj attention.k_proj attention.v_proj",
                "attn.q_bias": "attention.q_proj.bias",
                "attn.v_bias": "attention.v_proj.bias",
                "attn.proj": "attention.o_proj",
                "ls1.gamma": "layer_scale1.lambda1",
                "norm2": "norm2",
                "mlp.fc1": "mlp.up_proj",
                "mlp.fc2": "mlp.down_proj",
                "ls2.gamma": "layer_scale2.lambda1",
            },
        ),
    },
    "layer.0.mlp.gate_proj.weight": _blocks("layer", {"mlp.fc1": "mlp.gate_proj mlp.up_proj"}),
    "embeddings.patch_embedding.weight": {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding.weight",
        "patch_embed.proj": "embeddings.patch_embedding",
        "norm_pre": "pre_layrnorm",
        "norm": "post_layernorm",
        "attn_pool.latent": "head.probe",
        "attn_pool.qkv.weight": "head.attention.in_proj_weight",
        "attn_pool.qkv.bias": "head.attention.in_proj_bias",
        "attn_pool.proj": "head.attention.out_proj",
        "attn_pool.norm": "head.layernorm",
        "attn_pool.mlp.fc1": "head.mlp.fc1",
        "attn_pool.mlp.fc2": "head.mlp.fc2",
        **_blocks(
            "encoder.layers",
            {
                "norm1": "layer_norm1",
                "attn.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
                "attn.proj": "self_attn.out_proj",
                "norm2": "layer_norm2",
                "mlp.fc1": "mlp.fc1",
                "mlp.fc2": "mlp.fc2",
            },
        ),
    },
}
PREFIXES = ("", "vision_model.", "vit.", "dinov2.", "dinov2_with_registers.", "model.")
# Classifiers, text towers, projections to what both towers share, and tokens of training alone.
OPTIONAL = (
    *("head.weight", "head.bias", "classifier.*", "pooler.dense.*", "*mask_token", "*.position_ids", "text_model.*"),
    *("logit_scale", "logit_bias", "visual_projection.*", "text_projection*", "visual.proj", "transformer.*"),
    *("token_embedding.weight", "positional_embedding", "ln_final.*"),
)


def names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]:
    table: dict[str, str] = {}
    prefix = ""
    for mark, theirs in ELSEWHERE.items():
        for each in PREFIXES:
            if each + mark in shapes:
                table, prefix = table | theirs, each
    return layers.renamed(table, prefix), OPTIONAL


def blank(**architecture: Any) -> jax.Array:
    return jnp.zeros((1, 2 * architecture["patch"], 2 * architecture["patch"], 3))


def network(*, norm: str, norm_groups: int, outputs: str, dtype: Any, **architecture: Any) -> nn.Module:
    """`F` is the width. The map is of the patches after the last normalisation, [B, H / patch, W / patch, F].

    architecture: that of `Architecture`. There are no statistics of batches for `norm` and `norm_groups` to be of.

    Raises:
      ValueError: when it is called, where the patch does not divide the images' sides.
    """
    return _Vit(Architecture(**architecture), outputs, dtype)


class _Vit(nn.Module):
    of: Architecture
    outputs: str
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        of, given = self.of, x.dtype
        if any(side % of.patch for side in x.shape[1:3]):
            raise ValueError(f"images of {x.shape[1]} x {x.shape[2]} pixels: the patch, {of.patch}, must divide a side")
        x = layers.Patches(of.width, of.patch, self.dtype, of.patch_bias, name="patch_embed.proj")(x)
        rows, columns = x.shape[1:3]
        x = x.reshape(x.shape[0], rows * columns, of.width)
        first = self.tokens("cls_token", 1, x) if of.class_token else x[:, :0]
        if of.grid:
            stored = self.tokens("pos_embed", of.grid**2 + of.class_position, x[:1])
            if of.class_position:
                first = first + stored[:, :1]
            x = x + positions(stored[:, of.class_position :], (rows, columns), of.antialias).astype(x.dtype)
        parts = [first, x] if of.registers is None else [first, self.tokens("reg_token", of.registers, x), x]
        before = sum(part.shape[1] for part in parts[:-1])
        x = jnp.concatenate(parts, 1)
        if of.norm_pre:
            x = layers.LayerNorm(of.epsilon, name="norm_pre")(x)
        turns = rotations(before, rows, columns, of.width // of.heads, of.rope) if of.rope else None
        for i in range(of.depth):
            x = _Block(of, self.dtype, name=f"blocks.{i}")(x, turns)
        x = layers.LayerNorm(of.epsilon, name="norm")(x)
        patches = x[:, before:]
        pooled = self.attend(patches) if of.pool == "map" else x[:, 0]
        if self.outputs == "map":
            return patches.reshape(x.shape[0], rows, columns, -1).astype(given)
        return patches.mean(1, dtype=given) if of.pool == "avg" else pooled.astype(given)

    def tokens(self, name, count, x):
        """A parameter [1, count, width], once for each row of `x`."""
        stored = self.param(name, nn.initializers.normal(0.02), (1, count, self.of.width), widen(x).dtype)
        return jnp.broadcast_to(stored.astype(x.dtype), (x.shape[0], count, self.of.width))

    def attend(self, x):
        """Features [B, F] of the patches [B, N, F]: what one learnt query attends to, and a hidden layer."""
        of, name = self.of, "attn_pool"
        both = jnp.concatenate([self.tokens(f"{name}.latent", 1, x), x], 1)
        query, key, value = jnp.split(layers.dense(both, 3 * of.width, self.dtype, f"{name}.qkv"), 3, -1)
        y = attention(query[:, :1], key[:, 1:], value[:, 1:], of.heads)
        x = layers.dense(y, of.width, self.dtype, f"{name}.proj")
        y = layers.LayerNorm(of.epsilon, name=f"{name}.norm")(x)
        y = ACTIVATIONS[of.act](layers.dense(y, of.hidden, self.dtype, f"{name}.mlp.fc1"))
        return (x + layers.dense(y, of.width, self.dtype, f"{name}.mlp.fc2"))[:, 0]


class _Block(nn.Module):
    of: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x, turns):
        of, width = self.of, self.of.width

        def scaled(name, y):
            if not of.layer_scale:
                return y
            return y * layers.along(self.param(name, nn.initializers.ones, (width,), widen(y).dtype), y)

        y = layers.LayerNorm(of.epsilon, name="norm1")(x)
        y = layers.dense(y, 3 * width, self.dtype, "attn.qkv", bias=of.qkv_bias == "qkv")
        if of.qkv_bias == "qv":
            of_query, of_value = (
                self.param(f"attn.{which}_bias", nn.initializers.zeros, (width,), widen(y).dtype) for which in "qv"
            )
            y = y + layers.along(jnp.concatenate([of_query, jnp.zeros_like(of_query), of_value]), y)
        query, key, value = jnp.split(y, 3, -1)
        y = attention(query, key, value, of.heads, turns)
        x = x + scaled("ls1.gamma", layers.dense(y, width, self.dtype, "attn.proj"))
        y = layers.LayerNorm(of.epsilon, name="norm2")(x)
        y = layers.dense(y, (1 + of.gated) * of.hidden, self.dtype, "mlp.fc1")
        if of.gated:
            gate, y = jnp.split(y, 2, -1)
            y = ACTIVATIONS[of.act](gate) * y
        else:
            y = ACTIVATIONS[of.act](y)
        return x + scaled("ls2.gamma", layers.dense(y, width, self.dtype, "mlp.fc2"))


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, heads: int, turns: tuple[np.ndarray, np.ndarray] | None = None
) -> jax.Array:
    """Attention of `heads` heads, queries [B, Q, F], keys and values [B, N, F] to [B, Q, F]; softmax in float32.

    turns: of `rotations`, [N, F / heads] each, of queries and keys alike.
    """
    query, key, value = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    if turns is not None:
        query, key = (_turned(x, *turns) for x in (query, key))
    scores = widen(jnp.einsum("bqhd,bkhd->bhqk", query, key)) * query.shape[-1] ** -0.5
    y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(value.dtype), value)
    return y.reshape(*y.shape[:2], -1)


def _turned(x, cos, sin):
    wide = widen(x)
    half = x.shape[-1] // 2
    turned = jnp.concatenate([-wide[..., half:], wide[..., :half]], -1)
    cos, sin = (jnp.asarray(each, wide.dtype)[None, :, None] for each in (cos, sin))
    return (wide * cos + turned * sin).astype(x.dtype)


def rotations(before: int, rows: int, columns: int, width: int, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines [before + rows * columns, width] of DINOv3's rotations (Siméoni et al. 2025, section 3.2):
    none of the first tokens; of a patch by where its centre is in [-1, 1] x [-1, 1], in `width / 4` periods of
    1 to nearly `longest` for each axis."""
    y, x = ((np.arange(count) + 0.5) / count * 2 - 1 for count in (rows, columns))
    periods = longest ** (4 * np.arange(width // 4) / width)
    places = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2, 1)
    angles = np.tile((2 * np.pi * places / periods).reshape(rows * columns, -1), 2)
    angles = np.concatenate([np.zeros((before, width)), angles])
    return np.cos(angles), np.sin(angles)


def positions(stored: jax.Array, shape: tuple[int, int], antialias: bool) -> jax.Array:
    """Position embeddings [1, G * G, F] of a square grid for one of `shape`, [1, rows * columns, F]."""
    side, width = math.isqrt(stored.shape[1]), stored.shape[-1]
    if shape == (side, side):
        return stored
    grid = stored.reshape(side, side, width)
    if antialias:
        resized = jax.image.resize(grid, (*shape, width), "cubic", antialias=True)
    else:
        rows, columns = (jnp.asarray(cubic(side, count), stored.dtype) for count in shape)
        resized = jnp.einsum("rh,cw,hwf->rcf", rows, columns, grid)
    return resized.reshape(1, -1, width)


def cubic(size: int, count: int) -> np.ndarray:
    """The matrix [count, size] that resizes a side of `size` to `count` as PyTorch's "bicubic" does: the cubic
    convolution of a = -3/4 (Keys 1981, equation 4) at the pixels' centres, those beyond an end being the last."""
    at = (np.arange(count)[:, None] + 0.5) * size / count - 0.5
    taps = np.floor(at) + np.arange(-1, 3)
    d, a = np.abs(at - taps), -0.75
    weights = np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a)
    matrix = np.zeros((count, size))
    np.add.at(matrix, (np.arange(count)[:, None], np.clip(taps, 0, size - 1).astype(int)), weights)
    return matrix
