"""Backbones: float images [B, H, W, C] in [0, 1], or token ids int32 [B, L] with 0 for padding, to features [B, F].

With `outputs` "map" they are those of every position, [B, H', W', F] or [B, L, F], before any pooling or flattening and
0 where there is no token; the variables are the same. `labelfx.models.pooled` makes features of them.

`dtype` is the compute dtype. Parameters are float32, features have the dtype of the images (of text, that of the
parameters), and "float32" leaves float64 images and parameters at float64. `remat` computes every residual block again
in the backward pass: about a third more time for the memory of its activations (not on CPU, where XLA merges the two
computations).

Batch normalisation (see `layers.BatchNorm`) takes its statistics over the whole batch: under `jit` over a mesh that is
the global batch, not a device's share of it. `norm_groups` takes them over that many equal shares of the batch instead,
whatever the mesh; as many as devices is the per-device normalisation of common recipes.
"""

import json
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from labelfx.config.annotations import Fields, Fraction, NonNegativeInt, PositiveInt
from labelfx.graphs import Graph
from labelfx.models import Model, from_linen, mean_of_tokens
from labelfx.models.adapters import Lora
from labelfx.models.adapters import lora as adapted
from labelfx.models.graphs import Gcn, check_size
from labelfx.models.layers import BatchNorm, block, check_tokens, compute_dtype, layer_norm, widen
from labelfx.models.pretrained import network as network_of
from labelfx.models.pretrained import read as read_pretrained
from labelfx.models.pretrained import resized

Outputs = Literal["features", "map"]
_he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def mlp(*, hidden: tuple[PositiveInt, ...], dtype: Literal["float32", "bfloat16"]) -> Model:
    """Flattened pixels, or vectors, through Dense-ReLU layers of the sizes `hidden`; `()` gives them themselves."""
    return from_linen(_Mlp(hidden, compute_dtype(dtype)))


def conv3(
    *,
    width: PositiveInt,
    norm_groups: PositiveInt = 1,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """Three 3x3 Conv-BatchNorm-ReLU layers of `width`, `2 width` and `4 width` channels, flattened.

    For small images on a CPU: a layer has stride 2 while its input is larger than 4x4, so 28x28 and 32x32 images end
    at 4x4 as do 8x8 ones, with `F = 64 width`. Width 32 has 92,896 parameters on grey images, width 48 208,464.
    """
    return from_linen(_Conv3(width, norm_groups, compute_dtype(dtype), outputs))


def resnet18(
    *,
    stem: Literal["cifar", "imagenet"],
    width: PositiveInt,
    norm_groups: PositiveInt = 1,
    remat: bool = False,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """ResNet-18 (He et al. 2016, table 1) with basic blocks; `width` 64 is published. `F = 8 width`.

    The "imagenet" stem is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2, the "cifar" stem one 3x3
    convolution of stride 1 (for images of about 32x32).
    """
    return from_linen(_ResNet((2, 2, 2, 2), False, stem, width, norm_groups, remat, compute_dtype(dtype), outputs))


def resnet50(
    *,
    stem: Literal["cifar", "imagenet"],
    width: PositiveInt,
    norm_groups: PositiveInt = 1,
    remat: bool = False,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """ResNet-50 v1.5 as in torchvision: bottleneck blocks (He et al. 2016, table 1) with the stride in the 3x3.

    `width` 64 is published. `F = 32 width`. Stems as for `resnet18`. The scale of a block's last BatchNorm starts at 1;
    in the code of SimCLR, MoCo v3 and Barlow Twins at 0, so that a block starts as its shortcut.
    """
    return from_linen(_ResNet((3, 4, 6, 3), True, stem, width, norm_groups, remat, compute_dtype(dtype), outputs))


def wrn28(
    *,
    width: PositiveInt,
    dropout: Fraction,
    norm_groups: PositiveInt = 1,
    remat: bool = False,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """WRN-28-`width` (Zagoruyko & Komodakis 2016, table 1) for images of about 32x32, as in FixMatch's code.

    Pre-activation blocks with leaky ReLU of slope 0.1; the first block's shortcut also starts from the activation.
    `F = 64 width`; width 2 has 1,467,610 parameters with a linear head for 10 classes. `dropout` acts on the features
    (as in FixMatch's and MPL's code, not between convolutions as in the paper), so that training takes an `rng`.
    FixMatch's convolutions have biases, which a later normalisation takes away again; its running statistics decay by
    0.999 a step, here by 0.9; its BatchNorm adds 1e-3 to the variance, here 1e-5; its head starts from Glorot's normal
    distribution. MPL's own network has slope 0.2, a wider stem and activates every changing shortcut.
    """
    return from_linen(_Wrn(4, width, dropout, norm_groups, remat, compute_dtype(dtype), outputs))


def vit(
    *,
    size: Literal["ti", "s"],
    patch: PositiveInt,
    dropout: Fraction,
    remat: bool = False,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """ViT-Ti or ViT-S (Touvron et al. 2021, table 1: 12 blocks, `F` 192 or 384, 3 or 6 heads) of square patches.

    The plain form of Beyer et al. (2022): pre-norm, fixed 2-D sine-cosine positions, no class token, mean of the normed
    tokens. `dropout` is that of Dosovitskiy et al. (2021, appendix B.1): after the positions and after every dense
    layer but those of queries, keys and values.

    Raises:
      ValueError: `patch` does not divide the images' sides.
    """
    width, heads = {"ti": (192, 3), "s": (384, 6)}[size]
    return from_linen(_Vit(12, width, heads, patch, dropout, remat, compute_dtype(dtype), outputs))


def pretrained(
    weights: Any,
    *,
    file: str,
    image_size: NonNegativeInt,
    frozen: bool,
    lora: Annotated[dict, Fields(Lora)] | None,
    norm: Literal["batch", "stored"],
    norm_groups: PositiveInt = 1,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
    description: dict | None = None,
) -> Model:
    """The encoder in `file`, or in a folder, as others trained it (`labelfx.models.pretrained`): it starts from there.

    Images are resized to `image_size` pixels a side (0: left as they are; for text it is 0) and normalised as its
    configuration says, on the device. BatchNorm with `norm` "stored" takes the statistics of the file in training too,
    for batches too small to have statistics of their own. A `frozen` encoder stays as it is: a run sends every row
    through it once, keeps the features in its workdir, and trains what lies on top of them, standardised. With `lora`
    (`models.adapters`) small updates of its kernels are all that is trained of it. `description` is what a run keeps of
    the file, and is read from it where it is not given.

    Raises:
      ValueError: a frozen encoder is to give maps, or has updates.
    """
    if frozen and (outputs == "map" or lora):
        what = "lora: must be None" if lora else "outputs = 'map': must be 'features'"
        raise ValueError(f"{what} where the encoder is frozen")
    said = description or read_pretrained(file).description
    knobs = {
        "norm": "stored" if frozen else norm,
        "norm_groups": norm_groups,
        "outputs": outputs,
        "dtype": compute_dtype(dtype),
    }
    model = from_linen(network_of(said, **knobs))
    images = said["takes"] == "images"

    def init(rng, x):
        if weights is None:
            return model.init(rng, seen(x))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)

    def seen(x):
        return resized(x, said["preprocessing"], image_size) if images else x

    def apply(variables, x, *, train, rng=None):
        outputs, state = model.apply(variables, seen(x), train=train, rng=rng)
        return (jax.lax.stop_gradient(outputs) if frozen else outputs), state

    whole = Model(init, apply, norm_groups, json.dumps([said["sha256"], image_size, dtype]) if frozen else "")
    return adapted(whole, **lora) if lora else whole


def mean_pool(
    vocab_size: int,
    *,
    width: PositiveInt,
    dropout: Fraction,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """The mean of a text's token embeddings, whatever their order. `F = width`.

    `dropout` acts on the embeddings: every entry of every token by itself, so that under it two passes agree where the
    tokens of a text stand for one another.
    """
    return from_linen(_MeanPool(vocab_size, width, dropout, compute_dtype(dtype), outputs))


def transformer(
    vocab_size: int,
    *,
    layers: PositiveInt,
    width: PositiveInt,
    heads: PositiveInt,
    dropout: Fraction,
    remat: bool = False,
    outputs: Outputs = "features",
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """A transformer encoder with the normalisation before each layer (Xiong et al. 2020). `F = width`.

    Learnt positions, as many as the texts are long in tokens; padding is not attended to; features are the mean of the
    normed tokens. `dropout` as for `vit`: after the positions and after every dense layer but those of queries, keys
    and values.

    Raises:
      ValueError: `heads` does not divide `width`.
    """
    if width % heads:
        raise ValueError(f"heads = {heads}: must divide width = {width}")
    return from_linen(_Transformer(vocab_size, layers, width, heads, dropout, remat, compute_dtype(dtype), outputs))


def gcn(
    graph: Graph, *, hidden: tuple[PositiveInt, ...], dropout: Fraction, dtype: Literal["float32", "bfloat16"]
) -> Model:
    """Graph convolutions Dense-propagation-ReLU of the sizes `hidden`, and a last propagation (Kipf and Welling 2017).

    Rows are node ids int32 [B, 1]; every call goes through the whole graph. With a linear head the last propagation is
    that of the last layer, whose Dense it commutes with: `hidden=(16,)` is the published network of two layers. Words
    of a node are scaled to a sum of 1; dropout acts before each Dense, on the words too.

    Raises:
      ValueError: the graph takes more than 256 MB.
    """
    check_size(graph)
    return from_linen(Gcn(graph, hidden, dropout, compute_dtype(dtype)))


def _centred(images):
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"backbones take float images in [0, 1], got {images.dtype}; see augment.to_float")
    return 2 * images - 1


class _Mlp(nn.Module):
    hidden: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, images, train):
        x = images if images.ndim == 2 else _centred(images).reshape(images.shape[0], -1)
        for features in self.hidden:
            x = nn.relu(nn.Dense(features, dtype=self.dtype)(x))
        return x.astype(images.dtype)


class _Conv3(nn.Module):
    width: int
    norm_groups: int
    dtype: Any
    outputs: str = "features"

    @nn.compact
    def __call__(self, images, train):
        x = _centred(images)
        for features in (self.width, 2 * self.width, 4 * self.width):
            strides = 2 if max(x.shape[1:3]) > 4 else 1
            x = _conv(x, features, 3, strides, self.dtype)
            x = nn.relu(BatchNorm(self.norm_groups)(x, train))
        return (x if self.outputs == "map" else x.reshape(x.shape[0], -1)).astype(images.dtype)


class _ResNet(nn.Module):
    stage_sizes: tuple[int, ...]
    bottleneck: bool
    stem: str
    width: int
    norm_groups: int
    remat: bool
    dtype: Any
    outputs: str = "features"

    @nn.compact
    def __call__(self, images, train):
        size, strides = (3, 1) if self.stem == "cifar" else (7, 2)
        x = _conv(_centred(images), self.width, size, strides, self.dtype)
        x = nn.relu(BatchNorm(self.norm_groups)(x, train))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        stages = [stage for stage, blocks in enumerate(self.stage_sizes) for _ in range(blocks)]
        for i, stage in enumerate(stages):
            strides = 2 if i > 0 and stage > stages[i - 1] else 1
            sizes = self.width * 2**stage, strides, self.bottleneck
            x = block(_Block, self.remat)(*sizes, self.norm_groups, self.dtype, name=f"_Block_{i}")(x, train)
        return x.astype(images.dtype) if self.outputs == "map" else x.mean((1, 2), dtype=images.dtype)


class _Block(nn.Module):
    width: int
    strides: int
    bottleneck: bool
    norm_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        if self.bottleneck:  # (channels, kernel size, strides) of each convolution
            layers = [(self.width, 1, 1), (self.width, 3, self.strides), (4 * self.width, 1, 1)]
        else:
            layers = [(self.width, 3, self.strides), (self.width, 3, 1)]
        y = x
        for i, (features, size, strides) in enumerate(layers):
            y = nn.relu(y) if i > 0 else y
            y = BatchNorm(self.norm_groups)(_conv(y, features, size, strides, self.dtype), train)
        if x.shape != y.shape:
            x = _conv(x, features, 1, self.strides, self.dtype, name="shortcut")
            x = BatchNorm(self.norm_groups, name="shortcut_norm")(x, train)
        return nn.relu(x + y)


class _Wrn(nn.Module):
    blocks: int
    width: int
    dropout: float
    norm_groups: int
    remat: bool
    dtype: Any
    outputs: str = "features"

    @nn.compact
    def __call__(self, images, train):
        x = _conv(_centred(images), 16, 3, 1, self.dtype)
        for i in range(3 * self.blocks):
            stage, later = divmod(i, self.blocks)
            strides = 2 if stage > 0 and not later else 1
            sizes = 16 * self.width * 2**stage, strides, i == 0
            x = block(_WrnBlock, self.remat)(*sizes, self.norm_groups, self.dtype, name=f"_WrnBlock_{i}")(x, train)
        x = nn.leaky_relu(BatchNorm(self.norm_groups)(x, train), 0.1)
        x = x.astype(images.dtype) if self.outputs == "map" else x.mean((1, 2), dtype=images.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class _WrnBlock(nn.Module):
    width: int
    strides: int
    activated_shortcut: bool
    norm_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        y = nn.leaky_relu(BatchNorm(self.norm_groups)(x, train), 0.1)
        x = y if self.activated_shortcut else x
        y = _conv(y, self.width, 3, self.strides, self.dtype)
        y = nn.leaky_relu(BatchNorm(self.norm_groups)(y, train), 0.1)
        y = _conv(y, self.width, 3, 1, self.dtype)
        if x.shape != y.shape:
            x = _conv(x, self.width, 1, self.strides, self.dtype, name="shortcut")
        return x + y


class _Vit(nn.Module):
    blocks: int
    width: int
    heads: int
    patch: int
    dropout: float
    remat: bool
    dtype: Any
    outputs: str = "features"

    @nn.compact
    def __call__(self, images, train):
        rows, columns = (side // self.patch for side in images.shape[1:3])
        if (rows * self.patch, columns * self.patch) != images.shape[1:3]:
            raise ValueError(f"vit's patch {self.patch} does not divide images of shape {images.shape}")
        window = (self.patch, self.patch)
        x = nn.Conv(self.width, window, window, "VALID", dtype=self.dtype, name="patches")(_centred(images))
        x = x.reshape(x.shape[0], rows * columns, self.width)
        x = x + _sincos_2d(rows, columns, self.width)[None].astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for i in range(self.blocks):
            x = block(_VitBlock, self.remat)(self.heads, self.dropout, self.dtype, name=f"_VitBlock_{i}")(x, train)
        x = layer_norm(x)
        if self.outputs == "map":
            return x.reshape(x.shape[0], rows, columns, self.width).astype(images.dtype)
        return x.mean(1, dtype=images.dtype)


class _MeanPool(nn.Module):
    vocab_size: int
    width: int
    dropout: float
    dtype: Any
    outputs: str = "features"

    @nn.compact
    def __call__(self, tokens, train):
        x, dtype = _embed(self, tokens)
        return _of_tokens(nn.Dropout(self.dropout, deterministic=not train)(x), tokens, dtype, self.outputs)


class _Transformer(nn.Module):
    vocab_size: int
    layers: int
    width: int
    heads: int
    dropout: float
    remat: bool
    dtype: Any
    outputs: str = "features"

    @nn.compact
    def __call__(self, tokens, train):
        x, dtype = _embed(self, tokens)
        positions = self.param("positions", nn.initializers.normal(0.02), (tokens.shape[1], self.width))
        x = nn.Dropout(self.dropout, deterministic=not train)(x + positions[None].astype(x.dtype))
        for i in range(self.layers):
            own = block(_VitBlock, self.remat)(self.heads, self.dropout, self.dtype, name=f"block_{i}")
            x = own(x, train, tokens > 0)
        return _of_tokens(layer_norm(x), tokens, dtype, self.outputs)


def _embed(module, tokens):
    """Embeddings [B, L, width] in the compute dtype, and the dtype of the parameters."""
    check_tokens(tokens)
    table = module.param("embedding", nn.initializers.normal(0.02), (module.vocab_size, module.width))
    return jnp.asarray(table, module.dtype)[tokens], table.dtype


def _of_tokens(x, tokens, dtype, outputs):
    if outputs == "map":
        return jnp.where((tokens > 0)[..., None], x, 0).astype(dtype)
    return mean_of_tokens(x, tokens, dtype)


class _VitBlock(nn.Module):
    heads: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train, attended=None):
        batch, tokens, width = x.shape

        def dense(y, features, name):
            return nn.Dense(features, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype, name=name)(y)

        def drop(y):
            return nn.Dropout(self.dropout, deterministic=not train)(y)

        y = layer_norm(x)
        query, key, value = (
            dense(y, width, name).reshape(batch, tokens, self.heads, -1) for name in ("query", "key", "value")
        )
        scores = widen(jnp.einsum("bqhd,bkhd->bhqk", query, key)) * (width // self.heads) ** -0.5
        if attended is not None:  # finite, for the text without any token
            scores = jnp.where(attended[:, None, None], scores, jnp.finfo(scores.dtype).min)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(x.dtype), value)
        x = x + drop(dense(y.reshape(x.shape), width, "out"))
        y = drop(nn.gelu(dense(layer_norm(x), 4 * width, "hidden")))
        return x + drop(dense(y, width, "mlp_out"))


def _sincos_2d(rows, columns, width):
    """Positions [rows * columns, width] of Beyer et al. (2022): frequencies from 1 down to 1 / 10,000 itself.

    Those of MoCo v3 (Chen et al. 2021) are 10,000 ^ -(i / d), i < d = width / 4, and end before it.
    """
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) * 10000.0 ** -np.linspace(0, 1, width // 4)
    return jnp.asarray(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], 1))


def _conv(x, features, size, strides, dtype, name=None):
    # Padding as in torchvision: at stride 2, "SAME" would shift the grid by one pixel.
    layer = nn.Conv(
        features, (size, size), strides, size // 2, use_bias=False, kernel_init=_he_init, dtype=dtype, name=name
    )
    return layer(x)
