"""Pure losses: arrays in, a scalar out. One module a family, one function an objective."""

from labelfx.objectives.contrastive import feature_transform, moco_v3, sup_con, sup_con_mask
from labelfx.objectives.metric_learning import (
    metric_mix,
    mixed_multi_similarity,
    mixed_proxy_anchor,
    multi_similarity,
    proxy_anchor,
    proxy_nca,
    utilization,
)
from labelfx.objectives.redundancy import barlow_twins, vicreg
from labelfx.objectives.whitening import w_mse

__all__ = [
    "barlow_twins",
    "feature_transform",
    "metric_mix",
    "mixed_multi_similarity",
    "mixed_proxy_anchor",
    "moco_v3",
    "multi_similarity",
    "proxy_anchor",
    "proxy_nca",
    "sup_con",
    "sup_con_mask",
    "utilization",
    "vicreg",
    "w_mse",
]
