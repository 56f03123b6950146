"""Heads: features [B, F] to outputs [B, O]. Dtypes as for backbones."""

from typing import Any, Literal

from flax import linen as nn

from labelfx.config.annotations import PositiveInt
from labelfx.models import Model, from_linen
from labelfx.models.layers import BatchNorm, compute_dtype
from labelfx.objectives.contrastive import cosine, normalise


def linear(*, features: PositiveInt) -> Model:
    """One affine map, computed in the dtype of its input: `features` is the number of classes of a classifier."""
    return from_linen(_Projector((), features, False, 1, None))


def projector(
    *,
    hidden: tuple[PositiveInt, ...],
    features: PositiveInt,
    batch_norm: bool,
    norm_groups: PositiveInt = 1,
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """The non-linear head of SimCLR (Chen et al. 2020, section 4.2) and MoCo v2: Dense-[BatchNorm]-ReLU ... Dense.

    `hidden=()` is a linear map. A hidden Dense before a BatchNorm has no bias; the last Dense always has one;
    in SimCLR's code it has none, and a BatchNorm without bias follows.
    `norm_groups` as for backbones.
    """
    return from_linen(_Projector(hidden, features, batch_norm, norm_groups, compute_dtype(dtype)))


def siamese_mlp(
    *,
    hidden: tuple[PositiveInt, ...],
    features: PositiveInt,
    output_norm: bool,
    norm_groups: PositiveInt = 1,
    dtype: Literal["float32", "bfloat16"],
) -> Model:
    """Dense-BatchNorm-ReLU ... Dense without any bias, for Siamese networks (BYOL, Grill et al. 2020).

    `output_norm` adds a BatchNorm without scale and bias (SimSiam's projector, both heads of MoCo v3). `norm_groups` as
    for backbones.
    """
    return from_linen(_SiameseMlp(hidden, features, output_norm, norm_groups, compute_dtype(dtype)))


def prototypes(*, features: PositiveInt) -> Model:
    """Products of L2-normalised inputs with `features` prototypes, the columns of a kernel (SwAV, Caron et al. 2020).

    Whoever uses it scales the prototypes to unit length, so that the outputs are cosines.
    """
    return from_linen(_Prototypes(features))


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


class _SiameseMlp(nn.Module):
    hidden: tuple[int, ...]
    features: int
    output_norm: bool
    norm_groups: int
    dtype: Any

    @nn.compact
    def __call__(self, features, train):
        x = features
        for size in self.hidden:
            x = nn.Dense(size, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(BatchNorm(self.norm_groups)(x, train))
        x = nn.Dense(self.features, use_bias=False, dtype=self.dtype)(x)
        if self.output_norm:
            x = BatchNorm(self.norm_groups, affine=False)(x, train)
        return x.astype(features.dtype)


class _Prototypes(nn.Module):
    features: int

    @nn.compact
    def __call__(self, features, train):
        x = normalise(features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features), x.dtype)
        return cosine(x, kernel.T).astype(features.dtype)
