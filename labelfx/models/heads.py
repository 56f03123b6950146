"""Heads: features [B, F] to outputs [B, O]. Dtypes as for backbones."""

from typing import Any, Literal

from flax import linen as nn

from labelfx.models import Model, from_linen
from labelfx.models.layers import BatchNorm, compute_dtype
from labelfx.types import PositiveInt


def linear(*, features: PositiveInt) -> Model:
    """One affine map, computed in the dtype of its input: `features` is the number of classes of a classifier."""
    return from_linen(_Projector((), features, False, 1, None))


def projector(
    *,
    hidden: tuple[int, ...],
    features: PositiveInt,
    batch_norm: bool,
    norm_groups: PositiveInt = 1,
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """The non-linear head of SimCLR (Chen et al. 2020, section 4.2) and MoCo v2: Dense-[BatchNorm]-ReLU ... Dense.

    `hidden=()` is a linear map. A hidden Dense before a BatchNorm has no bias; the last Dense always has one.
    `norm_groups` as for backbones.
    """
    return from_linen(_Projector(hidden, features, batch_norm, norm_groups, compute_dtype(dtype)))


class _Projector(nn.Module):
    hidden: tuple[int, ...]
    features: int
    batch_norm: bool
    norm_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, features, train):
        x = features
        for size in self.hidden:
            x = nn.Dense(size, use_bias=not self.batch_norm, dtype=self.dtype)(x)
            if self.batch_norm:
                x = BatchNorm(self.norm_groups)(x, train)
            x = nn.relu(x)
        return nn.Dense(self.features, dtype=self.dtype)(x).astype(features.dtype)
