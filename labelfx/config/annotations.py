"""Annotations that say what a configuration value may be.

A builder's keyword-only parameters are the schema of its part of the configuration, so these annotations are read
twice: by people in the signature, and by `labelfx.config` when it checks a run before any data is touched.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple


class Limit(NamedTuple):
    """An allowed range: `text` for the reader of an error, `holds` for the check."""

    text: str
    holds: Callable[[Any], bool]


class Part(NamedTuple):
    """A nested part of the configuration: a dict whose `name` picks a function of package or module `labelfx.<where>`.

    `positional` names the leading parameters that the caller gives later; the value is then that function with its
    keywords bound; some of these functions may take those of `optional` as well, and those of `bound`, which are known
    when the part is built. Without `positional` the function is a builder and the value is what it returns. `common` is
    a class whose keyword-only parameters every dict of this kind takes beside those of its function.
    """

    where: str
    positional: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    common: Callable[..., Any] | None = None
    bound: tuple[str, ...] = ()


class Fields(NamedTuple):
    """A nested dict without a name: its keys are the keyword-only parameters of `function`."""

    function: Callable[..., Any]


Positive = Annotated[float, Limit("a number > 0", lambda v: 0 < v < math.inf)]
NonNegative = Annotated[float, Limit("a number >= 0", lambda v: 0 <= v < math.inf)]
Fraction = Annotated[float, Limit("a number in [0, 1)", lambda v: 0 <= v < 1)]
Probability = Annotated[float, Limit("a number in [0, 1]", lambda v: 0 <= v <= 1)]
PositiveInt = Annotated[int, Limit("an integer from 1 to 2^31 - 1", lambda v: 0 < v < 2**31)]
NonNegativeInt = Annotated[int, Limit("an integer from 0 to 2^31 - 1", lambda v: 0 <= v < 2**31)]
TwoOrMore = Annotated[int, Limit("an integer >= 2", lambda v: 2 <= v < 2**31)]

Objective = Annotated[functools.partial, Part("objectives", ("z_a", "z_b"))]
"""A two-view objective `(z_a, z_b) -> scalar`, its keywords bound."""
QueryKeyObjective = Annotated[functools.partial, Part("objectives", ("query_a", "query_b", "key_a", "key_b"))]
"""An objective of two views in two networks, `(query_a, query_b, key_a, key_b) -> scalar`, its keywords bound."""
Augment = Annotated[Callable[..., Any], Part("data.augment")]
"""An augmentation `(rng, images) -> images`, float32 [B, H, W, C] in [0, 1]."""

Mixing = Annotated[Callable[..., Any], Part("data.mixing")]
"""What mixes the rows of a batch with each other, `(rng, n, shape) -> Mix` (`labelfx.data.mixing`)."""

Pair = Annotated[Callable[..., Any], Part("data.pairs", ("rows",))]
"""What makes two inputs of a row, `(rows) -> (left, right)`."""

Transformation = Annotated[functools.partial, Part("data.transformations", ("images",))]
"""Every image by each of M transformations, `(images) -> [B, M, H, W, C]`."""

Optimizer = Annotated[Callable[..., Any], Part("loop.optim", ("steps",))]
"""An optimiser `(steps) -> optax.GradientTransformation`, for methods that train a second network."""

Head = Annotated[Any, Part("models.heads")]
"""A network on features (`labelfx.models.Model`)."""

Query = Annotated[functools.partial, Part("labels.queries", ("evidence", "told", "count", "rng"))]
"""A query of `labelfx.labels.queries`, `(evidence, told, count, rng) -> rows`, its keywords bound."""

Selection = Annotated[functools.partial, Part("mining.rules", ("rng", "found", "count"))]
"""A rule of `labelfx.mining.rules`, `(rng, found, count) -> positions`, its keywords bound."""
