"""Static token embeddings: a text is the mean of a table's rows, as model2vec (Tulkens and van Dongen 2024) and
WordLlama (Miller 2024) make it of larger encoders. WordLlama's means are scaled to length 1, and model2vec's where its
`config.json` says `normalize`.

A folder holds `model.safetensors`, whose tensor is `embeddings` or `embedding.weight` [V, D], and the `tokenizer.json`
that numbers its rows. WordLlama's package has them as `weights/l2_supercat_256.safetensors` and
`tokenizers/l2_supercat_tokenizer_config.json`: give them these names in one folder. With model2vec's `weights` [V] the
mean is of rows times their weights; its int8 tables are read as they are, for their common scale is lost in the length.

Token ids int32 [B, L] are those of `labelfx.data.tokens.read`: where the tokenizer's own 0 is a token they are one
more than its, so that 0 is padding. Tokens that both libraries leave out of the mean are left out here: those that the
tokenizer puts around a text, and model2vec's unknown one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.data.tokens import special
from labelfx.models.layers import check_tokens
from labelfx.models.pretrained.layers import unit

TABLES = ("embeddings", "embedding.weight")


def recognise(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What the tensors and `tokenizer.json` say, or None where they are of another network.

    Raises:
      ValueError: the table is stored in a way that is not read, or there is no tokenizer; one line.
    """
    table = _table(shapes)
    if not table:
        return None
    if "mapping" in shapes:
        raise ValueError("tokens share the rows of 'embeddings' by 'mapping'; must be a table of one row a token")
    if "tokenizer" not in config:
        raise ValueError(f"has no tokenizer.json, which says what the rows of {table!r} are of")
    found, (rows, width) = special(config["tokenizer"]), shapes[table]
    left_out = {*found.around, *(found.unknown if table == "embeddings" else ())}
    architecture = {
        "vocab_size": rows + found.shift,
        "width": width,
        "shift": found.shift,
        "weighted": "weights" in shapes,
        "left_out": sorted(id + found.shift for id in left_out),
        "normalise": config.get("normalize", table == "embedding.weight"),
    }
    return {"architecture": architecture, "takes": "text", "preprocessing": {}}


def _table(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return next((name for name in TABLES if len(shapes.get(name, ())) == 2), "")


def names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]:
    return lambda name: (_table(shapes) if name == "embedding.weight" else name,), ()


def blank(**architecture: Any) -> jax.Array:
    return jnp.ones((1, 2), jnp.int32)


def network(*, norm: str, norm_groups: int, outputs: str, dtype: Any, left_out: Any, **architecture: Any) -> nn.Module:
    """`F = width`. It has no BatchNorm: `norm` and `norm_groups` change nothing."""
    return _Static(**architecture, left_out=tuple(left_out), outputs=outputs, dtype=dtype)


class _Static(nn.Module):
    vocab_size: int
    width: int
    shift: int
    weighted: bool
    left_out: tuple[int, ...]
    normalise: bool
    outputs: str
    dtype: Any

    @nn.compact
    def __call__(self, tokens, train):
        check_tokens(tokens)
        rows = self.vocab_size - self.shift
        ids = jnp.maximum(tokens - self.shift, 0)
        meant = (tokens > 0) & ~jnp.isin(tokens, jnp.asarray(self.left_out, jnp.int32))
        x = nn.Embed(rows, self.width, name="embedding")(ids)
        given = x.dtype
        if self.weighted:
            x = x * self.param("weights", nn.initializers.ones, (rows,))[ids][..., None]
        x = jnp.where(meant[..., None], x, 0).astype(self.dtype or given)
        if self.outputs == "map":
            return x.astype(given)
        features = x.sum(1, dtype=given) / jnp.maximum(meant.sum(1, keepdims=True), 1).astype(given)
        return unit(features) if self.normalise else features
