"""What is said of the rows that a label view has chosen: the truth, or something weaker.

A kind takes, by name, what it needs: the truth `label` [N, ...], a generator `rng` of its own, `num_classes`, the
chosen `rows`, the `inputs` and the source's `columns`. It returns `Said`. What it says of a row depends on that row's
truth and on random numbers that are drawn for all N rows, whichever are chosen and whatever they are; bags look at
their chosen members together. Strengths nest for one seed: labels flipped at a rate are among those of a larger one.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import Limit, NonNegativeInt, Part, Positive, PositiveInt, Probability, TwoOrMore
from labelfx.data import known
from labelfx.labels.noise import posterior, true_shares
from labelfx.labels.recorded import majority, read

logger = logging.getLogger(__name__)

COLUMNS: dict[str, Any] = {
    "label": -1,  # the label as given, maybe wrong, shaped as the truth (NaN where that is a target)
    "given": -1,  # int32 [N]: a second, doubtful label, of rows outside the chosen ones too
    "candidates": True,  # bool [N, C]: the true class is one of these
    "target": np.nan,  # float32 [N, C]: a distribution, given or inferred
    "weight": 0,  # float32 [N] or [N, C]: of the row's loss; 0 leaves it out
    "votes": -1,  # int8 [N, M]: the class that labelling function, judge or annotator m names; -1 abstains
    "observed": False,  # bool [N]: known to be positive, or complete
    "propensity": np.nan,  # float32 [N]: the probability that a positive is observed, where that is known
    "bag": -1,  # int32 [N]: rows of one number are one bag
    "bag_target": np.nan,  # float32 [N, C]: what is said of the row's bag
    "group": -1,  # int32 [N], as the next three: groups of rows, never a label
    "client": -1,
    "domain": -1,
    "time": -1,
    "flagged": False,  # bool [N]: found to be bad by a person
}
"""The names that columns may have, one meaning each, with what stands where nothing is said."""

Column = Annotated[str, Limit("one of " + ", ".join(COLUMNS), lambda v: v in COLUMNS)]


Supervision = Annotated[
    functools.partial,
    Part(
        "objectives",
        ("logits",),
        (*COLUMNS, "valid", "features", "positions", "head", "mixed_logits", "partner"),
        bound=("class_counts",),
    ),
]
"""An objective `(logits, *columns) -> scalar` that names the columns it reads, its keywords bound; `valid` bool [B] is
False in rows that fill a batch of whole bags up, `features` [B, F] are those of the backbone, `positions` [B, ..., F]
what it gives before pooling, `head` the parameters of the classifier's head, `mixed_logits` [B, C] those of the rows
mixed with `partner` int [B]. `class_counts` int [C], the labels of each class, is bound too."""


def columns_of(objective: Supervision) -> dict[str, bool]:
    """The columns that an objective names, and whether it can do without."""
    found = list(inspect.signature(objective.func).parameters.values())[1:]
    found = [each for each in found if each.name not in objective.keywords]
    return {each.name: each.default is not each.empty for each in found if each.kind is each.POSITIONAL_OR_KEYWORD}


def supervision(objective: Supervision, logits: Any, columns: dict[str, Any]) -> Any:
    """The objective of what a stream says of its rows. KeyError where it lacks a column, whose name it is."""
    names = columns_of(objective).items()
    return objective(logits, **{name: columns[name] for name, optional in names if name in columns or not optional})


class Said(NamedTuple):
    """columns: name -> [N, ...]. everywhere: those of them that speak of rows outside the chosen ones too. audit: the
    truth about what is said, for metrics only."""

    columns: dict[str, np.ndarray]
    everywhere: frozenset[str] = frozenset()
    audit: dict[str, np.ndarray] = {}


def blank(name: str, column: np.ndarray) -> np.ndarray:
    """A column of this shape that says nothing."""
    nothing = COLUMNS[name]
    if name == "label" and np.issubdtype(column.dtype, np.floating):
        nothing = np.nan
    return np.full_like(column, nothing)


def symmetric(label: np.ndarray, rng: np.random.Generator, num_classes: int, *, rate: Probability) -> Said:
    """`label`: with probability `rate` one of the other C - 1 classes, all alike (half the field draws among all C)."""
    flipped = rng.random(len(label)) < rate
    other = (label + rng.integers(1, max(2, num_classes), len(label))) % num_classes
    return _noisy(label, np.where(flipped, other, label))


def asymmetric(
    label: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
    *,
    flips: tuple[tuple[int, ...], ...],
    rate: Probability,
) -> Said:
    """`label`: with probability `rate` the partner of its class in `flips`, pairs (from, to); other classes are right.

    Of CIFAR-10 usually truck to automobile, bird to airplane, deer to horse, cat to dog and back: ((9, 1), (2, 0),
    (4, 7), (3, 5), (5, 3)) (Patrini et al. 2017, section 5).

    Raises:
      ValueError: no pair of classes, or a class has two partners.
    """
    if any(len(pair) != 2 or not all(0 <= each < num_classes for each in pair) for pair in flips):
        raise ValueError(f"flips = {flips}: must be pairs (from, to) of classes 0..{num_classes - 1}")
    if len({first for first, _ in flips}) < len(flips):
        raise ValueError(f"flips = {flips}: a class is flipped to two others; name each once")
    partner = np.arange(num_classes)
    for first, second in flips:
        partner[first] = second
    return _noisy(label, np.where(rng.random(len(label)) < rate, partner[label], label))


def transition(
    label: np.ndarray, rng: np.random.Generator, num_classes: int, *, matrix: tuple[tuple[float, ...], ...]
) -> Said:
    """`label`: class j with probability `matrix[i][j]` where the truth is i.

    Raises:
      ValueError: it is not [C, C], or a row of it is no distribution.
    """
    rows = _distributions(matrix, num_classes)
    return _noisy(label, _draw(rows[label], rng.random(len(label))))


def instance_dependent(
    label: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
    inputs: Any,
    *,
    rate: Probability,
    spread: Positive,
) -> Said:
    """`label`: wrong with a probability of the row's own, and what for hangs on its input (Xia et al. 2020, "Part-
    dependent Label Noise", algorithm 2).

    The probability is from N(rate, spread^2), within [0, 1]; the wrong class from softmax(x W_y) without the truth y,
    with W_y [F, C] standard normal and x scaled to unit length, so that one entry is as large whatever F.
    """
    from scipy.stats import truncnorm

    low, high = -rate / spread, (1 - rate) / spread
    wrong = truncnorm.ppf(rng.random(len(label)), low, high, rate, spread)
    u_wrong, u_class = rng.random((2, len(label)))
    planes = rng.standard_normal((num_classes, int(np.prod(inputs.shape[1:])), num_classes))
    given = label.copy()
    for rows in np.array_split(np.arange(len(label)), max(1, len(label) // 4096)):
        x = np.asarray(inputs[rows], np.float64).reshape(len(rows), -1)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for c in range(num_classes):
            of = label[rows] == c
            score = x[of] @ planes[c] * np.sqrt(x.shape[1])
            score[:, c] = -np.inf
            chance = np.exp(score - score.max(1, keepdims=True))
            drawn = _draw(chance / chance.sum(1, keepdims=True), u_class[rows[of]])
            given[rows[of]] = np.where(u_wrong[rows[of]] < wrong[rows[of]], drawn, c)
    return _noisy(label, given)


def complementary(
    label: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
    *,
    count: PositiveInt,
    matrix: tuple[tuple[float, ...], ...] | None = None,
) -> Said:
    """`candidates`: all classes but `count` that the row is known not to be, drawn without preference or, one of them,
    by row y of `matrix` (Ishida et al. 2017; with a matrix Yu et al. 2018).

    Raises:
      ValueError: nothing would be left to choose from; or the matrix names the truth, is not [C, C] or draws several.
    """
    if count >= num_classes:
        raise ValueError(f"count = {count}: must be at most {num_classes - 1}, or the truth is among what it is not")
    if matrix is None:
        order = rng.random((len(label), num_classes))
        order[np.arange(len(label)), label] = np.inf  # the truth comes last
        return _instead(candidates=np.argsort(np.argsort(order, 1), 1) >= count)
    rows = _distributions(matrix, num_classes)
    if count > 1 or np.diag(rows).any():
        raise ValueError("matrix: draws one label that is not the truth: its diagonal must be 0, and count 1")
    drawn = _draw(rows[label], rng.random(len(label)))
    return _instead(candidates=drawn[:, None] != np.arange(num_classes))


def partial(label: np.ndarray, rng: np.random.Generator, num_classes: int, *, rate: Probability) -> Said:
    """`candidates`: the truth, and each other class with probability `rate` (Lv et al. 2020, section 4.1)."""
    also = rng.random((len(label), num_classes)) < rate
    return _instead(candidates=also | (label[:, None] == np.arange(num_classes)))


Propensity = Annotated[functools.partial, Part("data.propensity", ("inputs", "rng"))]


def positive_unlabelled(
    label: np.ndarray,
    rng: np.random.Generator,
    inputs: Any,
    *,
    positives: tuple[NonNegativeInt, ...],
    propensity: Propensity,
    known: bool,
) -> Said:
    """`observed`: rows of the classes `positives`, each with the probability that `propensity` gives its input; of no
    other row is anything known (Bekker and Davis 2020). With `known` the column `propensity` says those probabilities,
    of every row; they are in the audit anyway.

    Raises:
      ValueError: no row would be observed.
    """
    chance = propensity(inputs, rng)
    observed = np.isin(label, positives) & (rng.random(len(label)) < chance)
    if not observed.any():
        raise ValueError(f"positives = {positives}: no row of these classes is observed")
    propensities = {"propensity": chance.astype(np.float32)}
    return Said({"observed": observed, **(propensities if known else {})}, audit=propensities)


def proportions(
    label: np.ndarray, rng: np.random.Generator, num_classes: int, rows: np.ndarray, *, bag_size: PositiveInt
) -> Said:
    """`bag`, `bag_target`: the chosen rows in random bags of `bag_size`, the last may be smaller; said is the share of
    each class in the bag (learning from label proportions)."""
    bag = _bags(rng, len(label), rows, bag_size)
    return _instead(bag=bag, bag_target=_per_bag(np.eye(num_classes)[label], bag, np.mean))


def bags(
    label: np.ndarray, rng: np.random.Generator, rows: np.ndarray, *, bag_size: PositiveInt, witness: NonNegativeInt
) -> Said:
    """`bag`, `bag_target`: the chosen rows in random bags of `bag_size`; said is whether one of the class `witness` is
    in the bag, one-hot over (no, yes) (multiple-instance learning, after the MNIST-bags of Ilse et al. 2018)."""
    bag = _bags(rng, len(label), rows, bag_size)
    found = _per_bag((label == witness)[:, None].astype(float), bag, np.max)
    return _instead(bag=bag, bag_target=np.concatenate([1 - found, found], 1))


def domains(
    label: np.ndarray, rng: np.random.Generator, num_classes: int, *, count: TwoOrMore, alpha: Positive
) -> Said:
    """`domain` of every row, and no label: class shares of each of `count` domains are from Dirichlet(alpha / C), as
    likely as they make the row's class (Roberts et al. 2022, "Unsupervised Learning under Latent Label Shift")."""
    shares = rng.dirichlet(np.full(num_classes, alpha / num_classes), count).T + 1e-12
    domain = _draw((shares / shares.sum(1, keepdims=True))[label], rng.random(len(label)))
    return _instead(everywhere=frozenset({"domain"}), domain=domain.astype(np.int32))


def clients(
    label: np.ndarray, rng: np.random.Generator, num_classes: int, *, count: PositiveInt, alpha: Positive
) -> Said:
    """`client` of every row, and the label of the chosen ones: of each class `count` clients hold shares that are from
    a symmetric Dirichlet(alpha) (Yurochkin et al. 2019, ICML, section 4); the smaller alpha, the fewer hold a class,
    and some may hold no row."""
    shares = rng.dirichlet(np.full(count, alpha), num_classes)
    client = _draw(shares[label], rng.random(len(label)))
    return Said({"label": label, "client": client.astype(np.int32)}, frozenset({"client"}))


def drift(label: np.ndarray, inputs: Any, *, windows: TwoOrMore) -> Said:
    """`time` of every row: its inputs' mean decides which of `windows` equal windows it falls in, so that what is seen
    drifts; labels are those of the first window alone."""
    pieces = np.array_split(np.arange(len(label)), max(1, len(label) // 4096))
    means = np.concatenate([np.reshape(inputs[rows], (len(rows), -1)).mean(1) for rows in pieces])
    time = np.empty(len(label), np.int32)
    time[np.argsort(means, kind="stable")] = np.arange(len(label)) * windows // len(label)
    first = np.where(time == 0, label, -1).astype(label.dtype)
    return Said({"label": first, "time": time}, frozenset({"time"}))


def annotators(
    label: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
    *,
    accuracies: tuple[Probability, ...],
    coverage: Probability,
) -> Said:
    """`votes`: annotator m names the truth with probability `accuracies[m]`, else another class, all alike; each looks
    at a row with probability `coverage`."""
    shape = len(label), len(accuracies)
    looks, right = rng.random(shape) < coverage, rng.random(shape) < np.asarray(accuracies)
    other = (label[:, None] + rng.integers(1, max(2, num_classes), shape)) % num_classes
    return _instead(votes=np.where(looks, np.where(right, label[:, None], other), -1).astype(np.int8))


def poisoned(
    label: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
    *,
    rate: Probability,
    flagged: Probability,
    rule: Literal["random", "confusion"],
) -> Said:
    """`label`: wrong in a share `rate` of the rows, by one of the other classes ("random") or always the next
    ("confusion"); `flagged`: of the wrong ones a share `flagged`, which a person has found."""
    wrong = rng.random(len(label)) < rate
    step = rng.integers(1, max(2, num_classes), len(label)) if rule == "random" else 1
    said = _noisy(label, np.where(wrong, (label + step) % num_classes, label))
    return said._replace(columns={**said.columns, "flagged": wrong & (rng.random(len(label)) < flagged)})


def noisy_rest(label: np.ndarray, rng: np.random.Generator, num_classes: int, *, rate: Probability) -> Said:
    """`label`: the truth of the chosen rows; `given`: of every row a label that is wrong with probability `rate`, one
    of the other classes (a crowd, the web or a weak teacher beside few clean labels)."""
    doubtful = symmetric(label, rng, num_classes, rate=rate)
    return Said({"label": label, "given": doubtful.columns["label"]}, frozenset({"given"}), doubtful.audit)


def incomplete(label: np.ndarray, rng: np.random.Generator, *, rate: Probability, scale: Positive) -> Said:
    """`label`: a target that is too low with probability `rate`, by the size of a normal number of standard deviation
    `scale`, in units of the targets (a sensor that saw only a part; "Regression with Sensor Data Containing Incomplete
    Observations"). One from 0 up is not below 0 then.

    Raises:
      ValueError: the labels are not targets.
    """
    if not np.issubdtype(label.dtype, np.floating):
        raise ValueError("incomplete: is of targets, float32; take data of a regression, or symmetric for classes")
    low = rng.random(label.shape) < rate
    seen = label - low * np.abs(rng.normal(0, scale, label.shape))
    return _noisy(label, np.where(label >= 0, seen.clip(0), seen))


def plausible(
    columns: dict[str, np.ndarray],
    rng: np.random.Generator,
    num_classes: int,
    rows: np.ndarray,
    *,
    column: str,
    matrix: tuple[tuple[float, ...], ...],
) -> Said:
    """`label`: one that may be true where the source's `column` is what was given, drawn by the noise `matrix` (in row
    i what true class i is called) and the shares of classes that explain those of the chosen rows; another for every
    label_seed: runs of several are what `labelfx.labels.noise.ambiguity` asks for (Nagaraj et al. 2025, ICLR).

    Raises:
      ValueError: the source has no such column; or the matrix is not [C, C], a row of it no distribution, or a given
        label one that no class is called.
    """
    given, transition = _of_source(columns, column), _distributions(matrix, num_classes)
    if not transition[:, given].any(0).all():
        raise ValueError(f"matrix: no class is called {given[~transition[:, given].any(0)][0]}, and a row is")
    prior = true_shares(np.bincount(given[rows], minlength=num_classes) / len(rows), transition)
    chance = posterior(np.maximum(prior, 1e-12), transition, given)
    return Said({"label": _draw(chance, rng.random(len(given))).astype(np.int32)})


def column(columns: dict[str, np.ndarray], *, column: str, role: Column) -> Said:
    """The source's own `column` as the column `role`: nothing is simulated.

    Raises:
      ValueError: the source has no such column.
    """
    return Said({role: _of_source(columns, column)})


def recorded(label: np.ndarray, num_classes: int, rows: np.ndarray, *, path: str) -> Said:
    """`label`: what most of the recorded answers name, `weight`: how sure those are, `votes`: one column a judge; of
    the file `path` (`labelfx.labels.recorded`). Rows without an answer, or with abstentions alone, have no label.

    A class that no chosen row has is named in a warning: cross-entropy is defined all the same.

    Raises:
      FileNotFoundError, ValueError: the file cannot be used; or no chosen row has a label of it.
    """
    votes = read(local(path), len(label), num_classes)
    said, weight = majority(votes, len(label), num_classes)
    if not (said[rows] >= 0).any():
        raise ValueError(f"path = {path!r}: names no class for any of the {len(rows)} chosen rows")
    if missing := sorted({*range(num_classes)} - {*said[rows].tolist()}):
        logger.warning("%s: no chosen row is named as class %s", path, ", ".join(map(str, missing)))
    judges, judge = np.unique(votes.judge, return_inverse=True)
    by_judge = np.full((len(label), len(judges)), -1, np.int8)
    by_judge[votes.row, judge] = votes.vote
    return Said({"label": said, "weight": weight, "votes": by_judge})


def single_positive(label: np.ndarray, rng: np.random.Generator) -> Said:
    """`label`: of several labels one positive, drawn without preference, and nothing else; of a row without a positive
    nothing (Cole et al. 2021, "Multi-Label Learning from Single Positive Labels")."""
    order = np.where(label == 1, rng.random(label.shape), -1)
    chosen = (order == order.max(1, keepdims=True)) & (label == 1)
    return Said({"label": np.where(chosen, 1, -1).astype(label.dtype)})


def keep_entries(label: np.ndarray, rng: np.random.Generator, *, fraction: Probability) -> Said:
    """`label`: each entry of several labels, positive or negative, is said with probability `fraction`."""
    return Said({"label": np.where(rng.random(label.shape) < fraction, label, -1).astype(label.dtype)})


def positives_only(label: np.ndarray, rng: np.random.Generator, *, fraction: Probability) -> Said:
    """`label`: each positive of several labels is said with probability `fraction`, and no negative is."""
    said = (rng.random(label.shape) < fraction) & (label == 1)
    return Said({"label": np.where(said, 1, -1).astype(label.dtype)})


def points(label: np.ndarray, rng: np.random.Generator, *, per_class: PositiveInt) -> Said:
    """`label`: of every class in an image the class of `per_class` pixels, drawn without preference; all of them where
    there are fewer. The other pixels are void."""
    order = rng.random(label.shape)
    said = np.full_like(label, -1)
    for c in np.unique(label[label >= 0]):
        rank = np.where(label == c, order, np.inf).reshape(len(label), -1).argsort(1).argsort(1)
        said = np.where((rank.reshape(label.shape) < per_class) & (label == c), c, said)
    return Said({"label": said.astype(label.dtype)})


def _of_source(columns: dict[str, np.ndarray], column: str) -> np.ndarray:
    if column not in columns:
        raise ValueError(f"column = {column!r}: the data have no such column; allowed: {', '.join(columns) or 'none'}")
    return columns[column]


def _noisy(label: np.ndarray, given: np.ndarray) -> Said:
    """A label that may be wrong; unknown stays unknown. Whether it is wrong is for audits."""
    given = np.where(known(label), given, label).astype(label.dtype)
    return Said({"label": given}, audit={"noise": given != label})


def _instead(everywhere: frozenset[str] = frozenset(), **columns: np.ndarray) -> Said:
    """Columns in the place of labels."""
    dtypes = {"bag": np.dtype(np.int32), "bag_target": np.dtype(np.float32)}
    return Said({k: v.astype(dtypes.get(k, v.dtype)) for k, v in columns.items()}, everywhere)


def _distributions(matrix: tuple[tuple[float, ...], ...], num_classes: int) -> np.ndarray:
    if {len(matrix), *map(len, matrix)} != {num_classes}:
        raise ValueError(f"matrix: must have {num_classes} rows of {num_classes} numbers")
    rows = np.asarray(matrix, np.float64)
    bad = (rows < 0).any(1) | (abs(rows.sum(1) - 1) > 1e-6)
    if bad.any():
        raise ValueError(f"matrix: row {bad.argmax()} is {rows[bad.argmax()].tolist()}; must be probabilities of sum 1")
    return rows


def _draw(probabilities: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A class for each row [N, C] of probabilities, by numbers u [N] in [0, 1)."""
    return (probabilities.cumsum(1) <= u[:, None]).sum(1).clip(max=probabilities.shape[1] - 1)


def _bags(rng: np.random.Generator, count: int, rows: np.ndarray, bag_size: int) -> np.ndarray:
    """The bag of each row, int [N], -1 outside `rows`."""
    bag = np.full(count, -1)
    order = rng.permutation(count)
    bag[order[np.isin(order, rows)]] = np.arange(len(rows)) // bag_size
    return bag


def _per_bag(values: np.ndarray, bag: np.ndarray, of: Callable[..., Any]) -> np.ndarray:
    """`of` the values [N, K] of each bag, in each of its rows; NaN outside of bags."""
    found = np.full(values.shape, np.nan)
    order = np.argsort(bag, kind="stable")
    order = order[bag[order] >= 0]
    for members in np.split(order, np.flatnonzero(np.diff(bag[order])) + 1) if order.size else ():
        found[members] = of(values[members], axis=0)
    return found
