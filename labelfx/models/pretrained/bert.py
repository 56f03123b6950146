"""BERT (Devlin et al. 2019) and sentence encoders made of it, such as MiniLM (Wang et al. 2020) and others of
sentence-transformers (Reimers and Gurevych 2019, "Sentence-BERT"), of the names of transformers.

Token ids int32 [B, L] are those of the file's tokenizer, its special tokens included; 0 is its padding, which is not
attended to. Every text is one segment. Features [B, F] are the mean over the tokens, or the first, and of length 1
where the folder's `modules.json` says so; without one they are the mean, as sentence-transformers has it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.models import mean_of_tokens
from labelfx.models.layers import check_tokens, widen
from labelfx.models.pretrained.layers import unit

POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def recognise(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What a configuration of transformers says, or None where it is of another network.

    Raises:
      ValueError: it is a BERT of another kind, or its features are made in another way; one line.
    """
    if config.get("model_type") != "bert":
        return None
    allowed = {"hidden_act": "gelu", "position_embedding_type": "absolute", "pad_token_id": 0, "is_decoder": False}
    for key, value in allowed.items():
        if config.get(key, value) != value:
            raise ValueError(f"config.json: {key} = {config[key]!r}; a BERT that is read here has {value!r}")
    try:
        architecture = {
            "layers": config["num_hidden_layers"],
            "width": config["hidden_size"],
            "heads": config["num_attention_heads"],
            "hidden": config["intermediate_size"],
            "vocab_size": config["vocab_size"],
            "positions": config["max_position_embeddings"],
            "segments": config["type_vocab_size"],
            "epsilon": config["layer_norm_eps"],
        }
    except KeyError as error:
        raise ValueError(f"config.json: does not say {error}, which a BERT has") from None
    return {"architecture": architecture | _pooling(config.get("modules", ())), "takes": "text", "preprocessing": {}}


def _pooling(modules: Any) -> dict[str, Any]:
    """`pooling` and `normalise`, of the modules of sentence-transformers, each with its configuration."""
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    if kinds not in ([], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(f"modules.json: {', '.join(kinds)}; must be Transformer, Pooling and perhaps Normalize")
    said = modules[1].get("config", {}) if kinds else {"pooling_mode_mean_tokens": True}
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(f"{modules[1].get('path')}/config.json: {modes}; must be one of {', '.join(POOLINGS)}")
    return {"pooling": POOLINGS[modes[0]], "normalise": len(kinds) == 3}


def names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]:
    """Those of BertModel; a BertFor... has them below `bert.`, and a classifier that is left out."""
    prefix = "bert." if any(name.startswith("bert.") for name in shapes) else ""
    optional = (f"{prefix}pooler.*", f"{prefix}embeddings.position_ids", "cls.*", "classifier.*")
    return lambda name: (prefix + name,), optional


def blank(**architecture: Any) -> jax.Array:
    return jnp.ones((1, 2), jnp.int32)


def network(*, norm: str, norm_groups: int, outputs: str, dtype: Any, **architecture: Any) -> nn.Module:
    """`F = width`. It has no BatchNorm: `norm` and `norm_groups` change nothing."""
    return _Bert(**architecture, outputs=outputs, dtype=dtype)


class _Bert(nn.Module):
    layers: int
    width: int
    heads: int
    hidden: int
    vocab_size: int
    positions: int
    segments: int
    epsilon: float
    pooling: str
    normalise: bool
    outputs: str
    dtype: Any

    @nn.compact
    def __call__(self, tokens, train):
        check_tokens(tokens)
        if tokens.shape[1] > self.positions:
            raise ValueError(f"texts of {tokens.shape[1]} tokens; this encoder knows {self.positions} positions")
        x = self.embed(tokens, self.vocab_size, "word")
        given = x.dtype
        x = x + self.embed(jnp.arange(tokens.shape[1])[None], self.positions, "position")
        x = x + self.embed(jnp.zeros((1, 1), jnp.int32), self.segments, "token_type")
        x = self.norm(x.astype(self.dtype or given), "embeddings.LayerNorm")
        for i in range(self.layers):
            name = f"encoder.layer.{i}"
            y = self.attention(x, tokens > 0, f"{name}.attention")
            x = self.norm(x + y, f"{name}.attention.output.LayerNorm")
            y = nn.gelu(self.dense(x, self.hidden, f"{name}.intermediate.dense"), approximate=False)
            x = self.norm(x + self.dense(y, self.width, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        if self.outputs == "map":
            return jnp.where((tokens > 0)[..., None], x, 0).astype(given)
        features = mean_of_tokens(x, tokens, given) if self.pooling == "mean" else x[:, 0].astype(given)
        return unit(features) if self.normalise else features

    def embed(self, ids, count, kind):
        return nn.Embed(count, self.width, name=f"embeddings.{kind}_embeddings")(ids)

    def norm(self, x, name):
        wide = widen(x)
        norm = nn.LayerNorm(
            self.epsilon,
            param_dtype=wide.dtype,
            use_fast_variance=False,  # whose rounding is far above an epsilon of 1e-12
            force_float32_reductions=False,
            name=name,
        )
        return norm(wide).astype(x.dtype)

    def dense(self, x, features, name):
        return nn.Dense(features, dtype=self.dtype, name=name)(x)

    def attention(self, x, attended, name):
        split = (*x.shape[:2], self.heads, -1)
        query, key, value = (
            self.dense(x, self.width, f"{name}.self.{part}").reshape(split) for part in ("query", "key", "value")
        )
        scores = widen(jnp.einsum("bqhd,bkhd->bhqk", query, key)) * (self.width // self.heads) ** -0.5
        scores = jnp.where(attended[:, None, None], scores, jnp.finfo(scores.dtype).min)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(x.dtype), value)
        return self.dense(y.reshape(x.shape), self.width, f"{name}.output.dense")
