"""What backbones and heads share."""

import jax
import jax.numpy as jnp
from flax import linen as nn


def compute_dtype(name):
    """Linen's `dtype` for a configured "float32" or "bfloat16"; None computes in the dtype of input and parameters."""
    return None if name == "float32" else jnp.bfloat16


def check_tokens(tokens):
    """TypeError where they are no token ids, int32 [B, L]."""
    if tokens.dtype != jnp.int32 or tokens.ndim != 2:
        raise TypeError(f"text encoders take token ids, int32 [B, L], got {tokens.dtype} {tokens.shape}")


def widen(x):
    """bfloat16 to float32, other dtypes as they are: for statistics and softmax."""
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


class BatchNorm(nn.Module):
    """Batch normalisation of bfloat16 `x` in float32, of other `x` in its own dtype; the output has the dtype of `x`.

    In training the rows [B, ..., C] are cut into `groups` contiguous groups of `B / groups`, each normalised by its
    own mean and biased variance, as by batch normalisation per device (Goyal et al. 2017, section 2.3) on any mesh.
    Methods arrange the rows as devices would have them (`models.apply_together`). One group takes away what the
    statistics of a device's share tell of its rows, not what those of the batch tell of the batch.
    Running statistics are `0.9 old + 0.1 batch`, where `batch` is the mean over the groups. `affine` says whether a
    learnt scale and bias follow; `epsilon` is added to the variance.

    Raises:
      ValueError: in training, `groups` does not divide the batch.
    """

    groups: int
    affine: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, train):
        wide = widen(x)
        channels = x.shape[-1:]
        scale, bias = jnp.ones(channels, wide.dtype), jnp.zeros(channels, wide.dtype)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, channels, wide.dtype)
            bias = self.param("bias", nn.initializers.zeros, channels, wide.dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, wide.dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, wide.dtype)
        if train and len(x) % self.groups:
            raise ValueError(f"norm_groups must divide the batch: {self.groups} groups of {len(x)} rows")
        # A single group adds no axis: the compiler would round the gradients differently.
        cut = (self.groups, len(x) // self.groups) if train and self.groups > 1 else x.shape[:1]
        grouped = wide.reshape(*cut, *x.shape[1:])
        per_channel = (1,) * (grouped.ndim - 1) + channels
        if train:
            inner = tuple(range(len(cut) - 1, grouped.ndim - 1))
            mean, mean_square = (values.mean(inner, keepdims=True) for values in (grouped, jnp.square(grouped)))
            var = jnp.maximum(0.0, mean_square - jnp.square(mean))
            for running, batch in ((running_mean, mean), (running_var, var)):
                running.value = 0.9 * running.value + (1 - 0.9) * batch.reshape(-1, *channels).mean(0)
        else:
            mean, var = running_mean.value.reshape(per_channel), running_var.value.reshape(per_channel)
        y = (grouped - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale.reshape(per_channel)) + bias.reshape(
            per_channel
        )
        return y.reshape(x.shape).astype(x.dtype)


def layer_norm(x):
    """Layer normalisation over the last axis, in the dtypes of `BatchNorm`. Call it inside a compact Linen method."""
    wide = widen(x)
    # Linen's own widening relies on implicit promotion; `wide` is wide enough.
    norm = nn.LayerNorm(epsilon=1e-6, param_dtype=wide.dtype, force_float32_reductions=False)
    return norm(wide).astype(x.dtype)


def block(module, remat):
    """The residual block `module(x, train)`; `remat` computes it again for its gradient rather than keep it."""
    return nn.remat(module, static_argnums=(2,)) if remat else module
