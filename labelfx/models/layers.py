"""What backbones and heads share."""

import jax.numpy as jnp
from flax import linen as nn


def compute_dtype(name):
    """Linen's `dtype` for a configured "float32" or "bfloat16"; None computes in the dtype of input and parameters."""
    return None if name == "float32" else jnp.bfloat16


def batch_norm(x, train, name=None):
    """Batch normalisation of bfloat16 `x` in float32, of other `x` in its own dtype; the output has the dtype of `x`.

    Running statistics are `0.9 old + 0.1 batch`, with the biased variance. Call it inside a compact Linen method.
    """
    wide = x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        param_dtype=wide.dtype,
        force_float32_reductions=False,  # Linen's own widening relies on implicit promotion; `wide` is wide enough
        name=name,
    )
    return norm(wide).astype(x.dtype)
