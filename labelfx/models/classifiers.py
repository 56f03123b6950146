"""Heads that a run puts on its backbone's features, by `config.head`: features to one number an output, of which there
are as many as classes, labels or targets."""

from labelfx.models import Model, heads


def linear(num_outputs: int) -> Model:
    """One affine map of the features [B, F]: logits [B, num_outputs]."""
    return heads.linear(features=num_outputs)
