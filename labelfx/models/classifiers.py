"""Heads that a run puts on its backbone's features, by `config.head`: features to one number an output, of which there
are as many as classes, labels or targets."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from labelfx.config.annotations import Positive, PositiveInt
from labelfx.models import Model, from_linen, heads
from labelfx.objectives.contrastive import at_least_float32, normalise
from labelfx.objectives.contrastive import cosine as products
from labelfx.objectives.reliability import distances


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


def label_attention(
    num_outputs: int,
    class_names: tuple[str, ...] | None,
    tokenizer: Callable[[tuple[str, ...]], np.ndarray] | None,
    *,
    names: Literal["learned", "encoded"],
    extra: tuple[str, ...],
) -> Model:
    """Each label looks for itself in a text or a picture: logits [B, num_outputs] of maps H [B, ..., F].

    Label c with the query q_c reads d_c = softmax(H q_c / sqrt F)^T H over positions, and has the logit w_c^T d_c + b_c
    (KeNet, "Knowledge-enhanced Doc-Label Attention Network"; LDAM, "Label Dependent Attention Model for Disease Risk
    Prediction", of which the abstracts were at hand). Positions of a text that are 0 are padding and not attended to.
    With `names` "learned" q, w and b are parameters of each label. With "encoded" they are of what the backbone makes
    of its name, e_c [F], as of any text: q_c = e_c, w_c = W e_c, and one b, W starting as the identity, so that a label
    of which nothing was said is known by its name.
    Sentences of `extra`, knowledge from elsewhere, are encoded likewise and are positions of every row; () has none.
    The tokens of names and sentences are among the variables.

    Raises:
      ValueError: the features are no map; names or sentences are to be encoded and the rows are no texts; a name has
        no token.
    """
    named = num_outputs if names == "encoded" else 0
    sentences = (*(class_names or ("",) * named)[:named], *extra)
    module = _LabelAttention(num_outputs, named > 0)

    def rows(length):
        if class_names is None:  # a finished run has them among its variables
            return jnp.zeros((len(sentences), length), jnp.int32)
        if tokenizer is None or len(class_names) < named:
            raise ValueError("label_attention encodes names and sentences of texts; take names = 'learned', extra = ()")
        found = tokenizer(sentences)
        if (empty := ~(found > 0).any(1)).any():
            raise ValueError(f"label_attention: {sentences[int(np.argmax(empty))]!r} has no token; take another name")
        return jnp.asarray(found)

    def flat(x):
        if x.ndim < 3:
            raise ValueError(f"label_attention reads a map [B, ..., F], not {list(x.shape)}; take outputs = 'map'")
        real = jnp.any(x != 0, -1) if x.ndim == 3 else jnp.ones(x.shape[:-1], bool)
        return x.reshape(len(x), -1, x.shape[-1]), real.reshape(len(x), -1)

    def init(rng, x):
        none = jnp.zeros((named, x.shape[-1]), x.dtype)
        own = module.init(rng, *flat(x), none, none[:0])
        return {**own, "sentences": {"rows": rows(x.shape[1])}} if sentences else own

    def apply(variables, x, *, train, rng=None):
        said = variables["sentences"] if sentences else {"vectors": jnp.zeros((0, x.shape[-1]), x.dtype)}
        logits = module.apply(
            {"params": variables["params"]}, *flat(x), said["vectors"][:named], said["vectors"][named:]
        )
        return logits, {"sentences": {"rows": said["rows"]}} if sentences else {}

    return Model(init, apply)


def set_decoder(num_outputs: int, *, slots: PositiveInt) -> Model:
    """A recurrent decoder that names a set of labels one after the other, and then none (OTSeq2Set, Cao & Zhang 2022).

    A GRU of the width of the features [B, F] starts from them and reads at each of `slots` steps the embedding of what
    it has just said itself, in training too (student forcing). In training: logits [B, slots, num_outputs + 1], the
    last of no label, which `objectives.set_matching` reads. Else: logits [B, num_outputs], of the largest probability
    that a slot gives a label. The authors' decoder attends to the tokens too.
    """
    decoder = from_linen(_SetDecoder(num_outputs, slots))

    def apply(variables, x, *, train, rng=None):
        logits, state = decoder.apply(variables, x, train=train)
        if train:
            return logits, state
        wide = at_least_float32(logits)
        others = jnp.where(jnp.eye(num_outputs + 1, dtype=bool), -jnp.inf, wide[..., None, :])
        odds = wide - jax.nn.logsumexp(others, axis=-1)
        return jnp.max(odds[..., :-1], axis=1).astype(logits.dtype), state

    return Model(decoder.init, apply)


def anchored(num_outputs: int, *, anchors: PositiveInt, delta: Positive) -> Model:
    """ARBEx: where an affine classifier is not sure, it is corrected by how near the features are to anchors of each
    class and by how much they attend to them: log-probabilities [B, num_outputs] (Wasi et al. 2023, arXiv 2305.01486).

    With h [B, F] and `anchors` vectors a_ck a class, all brought to unit length, p = softmax(affine(h)), and c(p) =
    1 - H(p) / log C how sure a distribution is: g_c = sum_k softmax(-|h - a_ck| / delta), q_c = sum_k softmax(Q h K
    a_ck / sqrt F), both softmax over all anchors, r = (c(g) g + c(q) q) / (c(g) + c(q)), and the output is the log of
    c(p) p + (1 - c(p)) r. Sureness is kept within 1e-6 of 0 and 1.

    In the authors' code anchors start at 0, where those of a class stay alike for good; here at random. Its attention
    is between the rows of a batch, so that a prediction depends on the others; here between a row and the anchors. It
    blends the correction in by the share of steps done; here it is there from the start, in evals too.

    Raises:
      ValueError: there is one output.
    """
    if num_outputs < 2:
        raise ValueError(f"anchored is of two classes or more; the data have {num_outputs}")
    return from_linen(_Anchored(num_outputs, anchors, delta))


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


class _Anchored(nn.Module):
    features: int
    anchors: int
    delta: float

    @nn.compact
    def __call__(self, features, train):
        shape, dtype = (self.features, self.anchors, features.shape[-1]), features.dtype
        features = at_least_float32(features)
        anchors = normalise(self.param("anchors", nn.initializers.normal(1.0), shape, features.dtype))
        log_p = jax.nn.log_softmax(nn.Dense(self.features, name="Dense_0")(features))
        query = nn.Dense(shape[-1], use_bias=False, name="query")(normalise(features))
        key = nn.Dense(shape[-1], use_bias=False, name="key")(anchors)
        log_g = _of_classes(-distances(features, anchors) / self.delta)
        log_q = _of_classes(jnp.einsum("bf,ckf->bck", query, key) / np.sqrt(shape[-1]).astype(query.dtype))
        sure, by_g, by_q = (_sureness(each) for each in (log_p, log_g, log_q))
        correction = jnp.logaddexp(jnp.log(by_g) + log_g, jnp.log(by_q) + log_q) - jnp.log(by_g + by_q)
        return jnp.logaddexp(jnp.log(sure) + log_p, jnp.log1p(-sure) + correction).astype(dtype)


class _SetDecoder(nn.Module):
    features: int
    slots: int

    @nn.compact
    def __call__(self, features, train):
        shape, dtype = (self.features + 1, features.shape[-1]), features.dtype
        table = self.param("embedding", nn.initializers.normal(1.0), shape, dtype)
        cell, affine = nn.GRUCell(shape[-1], name="cell"), nn.Dense(self.features + 1, name="Dense_0")
        state, said, found = features, jnp.zeros_like(features), []
        for _ in range(self.slots):
            state, _ = cell(state, said)
            found.append(affine(state))
            said = table[jnp.argmax(found[-1], axis=-1)]
        return jnp.stack(found, 1).astype(dtype)


class _LabelAttention(nn.Module):
    features: int
    encoded: bool

    @nn.compact
    def __call__(self, positions, real, names, extra):
        width, dtype = positions.shape[-1], positions.dtype
        x = jnp.concatenate([positions, jnp.broadcast_to(extra, (len(positions), *extra.shape))], 1)
        real = jnp.concatenate([real, jnp.ones((len(x), len(extra)), bool)], 1)
        if self.encoded:
            query, number = names, 1
            kernel = names @ self.param("kernel", lambda _, n: jnp.eye(n, dtype=dtype), width)
        else:
            shape, number = (self.features, width), self.features
            query = self.param("query", nn.initializers.normal(1.0), shape, dtype)
            kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=-1, out_axis=-2), shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, (number,), dtype)
        scores = jnp.einsum("blf,cf->bcl", at_least_float32(x), query) / np.sqrt(width).astype(query.dtype)
        attention = jax.nn.softmax(jnp.where(real[:, None], scores, -1e30), axis=-1).astype(dtype)
        return jnp.einsum("bcl,blf,cf->bc", attention, x, kernel) + bias[None]


def _of_classes(scores):
    """Log-probabilities [B, C] of classes, of scores [B, C, K] of their anchors."""
    return jax.nn.logsumexp(scores, axis=-1) - jax.nn.logsumexp(scores, axis=(1, 2))[:, None]


def _sureness(log_p):
    """1 less the entropy over its largest value, [B, 1]."""
    sure = 1 + jnp.sum(jnp.exp(log_p) * log_p, axis=-1, keepdims=True) / np.log(log_p.shape[-1]).astype(log_p.dtype)
    return jnp.clip(sure, 1e-6, 1 - 1e-6)
