"""Heads that a run puts on its backbone's features, by `config.head`: features to one number an output, of which there
are as many as classes, labels or targets."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.config.annotations import Positive, PositiveInt
from labelfx.models import Model, from_linen, heads
from labelfx.objectives.contrastive import cosine as products
from labelfx.objectives.contrastive import normalise


def linear(num_outputs: int) -> Model:
    """One affine map of the features [B, F]: logits [B, num_outputs]; of a map, of those of every position."""
    return heads.linear(features=num_outputs)


def cosine(num_outputs: int) -> Model:
    """Cosines of the features [B, F] with one vector an output, in [-1, 1]: what `objectives.ldam` scales (Cao et al.
    2019, NeurIPS, whose code has such a layer)."""
    return from_linen(_Cosine(num_outputs))


def dense(num_outputs: int, *, size: tuple[PositiveInt, ...]) -> Model:
    """`linear` on every position of a map [B, H', W', F], resized bilinearly to labels of `size`, (H, W): logits
    [B, H, W, num_outputs].

    Raises:
      ValueError: `size` is not (H, W), or the features are no map.
    """
    if len(size) != 2:
        raise ValueError(f"size = {size}: must be (H, W), as the labels are")
    positions = linear(num_outputs)

    def check(x):
        if x.ndim != 4:
            raise ValueError(f"dense reads a map [B, H, W, F], not {list(x.shape)}; take config.model.outputs = 'map'")

    def init(rng, x):
        check(x)
        return positions.init(rng, x)

    def apply(variables, x, *, train, rng=None):
        check(x)
        logits, state = positions.apply(variables, x, train=train)
        return jax.image.resize(logits, (x.shape[0], *size, num_outputs), "bilinear"), state

    return Model(init, apply)


def class_activation(num_outputs: int, *, boost: Positive) -> Model:
    """`linear` on every position of a map [B, ..., F], each positive score times `boost`, then the mean over positions:
    logits [B, num_outputs] (BoostLU, Kim et al. 2023, CVPR: 5, against the low scores of networks whose missing labels
    counted as negative). With a boost of 1 it is `linear` on the mean.

    Raises:
      ValueError: the features are no map.
    """
    positions = linear(num_outputs)

    def check(x):
        if x.ndim < 3:
            raise ValueError(f"class_activation reads a map [B, ..., F], not {list(x.shape)}; take outputs = 'map'")

    def init(rng, x):
        check(x)
        return positions.init(rng, x)

    def apply(variables, x, *, train, rng=None):
        check(x)
        scores, state = positions.apply(variables, x, train=train)
        return jnp.mean(jnp.where(scores > 0, boost * scores, scores), range(1, x.ndim - 1)), state

    return Model(init, apply)


def attention(num_outputs: int, *, hidden: PositiveInt) -> Model:
    """`linear` of the features h [B, F] to two logits, and how much a row counts in its bag, w^T tanh(V h) with V
    [hidden, F]: the mean of the two, which the pool "attention" of `objectives.pooled` reads (Ilse et al. 2018, ICML,
    "Attention-based Deep Multiple Instance Learning", eq. 8). A softmax of the logits sees their difference alone.

    Raises:
      ValueError: `num_outputs` is not 2.
    """
    if num_outputs != 2:
        raise ValueError(f"attention is of two classes, whether a bag holds a row or not; the data have {num_outputs}")
    return from_linen(_Attention(hidden))


class _Cosine(nn.Module):
    features: int

    @nn.compact
    def __call__(self, features, train):
        shape = features.shape[-1], self.features
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, features.dtype)
        return products(normalise(features), normalise(kernel.T)).astype(features.dtype)


class _Attention(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, features, train):
        logits = nn.Dense(2, name="Dense_0")(features)  # where a linear head has its kernel
        hidden = nn.tanh(nn.Dense(self.hidden, use_bias=False, name="Attention_0")(features))
        attention = nn.Dense(1, use_bias=False, name="Attention_1")(hidden)
        return (logits - jnp.mean(logits, axis=-1, keepdims=True) + attention).astype(features.dtype)
