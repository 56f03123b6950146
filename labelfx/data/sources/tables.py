"""Rows of measurements, as vectors."""

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import NonNegativeInt, TwoOrMore
from labelfx.data import DataError, Dataset, Split
from labelfx.data.npy import read_arrays


def diabetes() -> Dataset:
    """scikit-learn's diabetes data: 332 training and 110 test patients float32 [10]; the files ship with the package.

    The label is the target itself, disease progression after a year, from 25 to 346: a regression, without classes. The
    ten columns are age, sex, body mass index, blood pressure and six serum measurements, in their units. The file names
    no order of its rows; every fourth, from the fourth on, is a test row.

    Source: Efron, Hastie, Johnstone and Tibshirani 2004, "Least Angle Regression", Annals of Statistics.
    """
    from sklearn.datasets import load_diabetes  # slow to import, and needed here only

    data = load_diabetes(scaled=False)
    is_test = np.arange(len(data.target)) % 4 == 3
    inputs, targets = data.data.astype(np.float32), data.target.astype(np.float32)
    train, test = (Split(inputs[rows], targets[rows]) for rows in (~is_test, is_test))
    return Dataset(train, test, ())


def breast_cancer() -> Dataset:
    """scikit-learn's breast cancer data: 427 training and 142 test tumours float32 [30], from its files.

    Benign or malignant, from thirty measurements of cell nuclei. Every fourth row, from the fourth on, is a test row.

    Source: Street, Wolberg and Mangasarian 1993, "Nuclear feature extraction for breast tumor diagnosis".
    """
    from sklearn.datasets import load_breast_cancer  # slow to import, and needed here only

    data = load_breast_cancer()
    is_test = np.arange(len(data.target)) % 4 == 3
    inputs, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    train, test = (Split(inputs[rows], labels[rows]) for rows in (~is_test, is_test))
    return Dataset(train, test, tuple(map(str, data.target_names)))


def multilabel(which: str, *, data_dir: str, seed: NonNegativeInt) -> Dataset:
    """A table of several labels, such as Mulan's yeast, emotions, enron and CAL500: float32 [N, F], labels int8 [N, C].

    data_dir: holds `WHICH.npz` with X [N, F], Y [N, C] of 0 and 1, and label_names [C].
    seed: of the split into two thirds to train on and a third to test on, which no file names: by iterative
      stratification (Sechidis et al. 2011, "On the Stratification of Multi-label Data", algorithm 1), so that rare
      labels are on both sides.
    """
    path = local(data_dir) / f"{which}.npz"
    if not path.is_file():
        found = ", ".join(sorted(each.stem for each in path.parent.glob("*.npz"))) or "no .npz"
        raise FileNotFoundError(f"{path.absolute()}: no such file; there is {found}")
    x, y, names = read_arrays(path, X=("fiu", 2), Y=("biu", 2), label_names=("U", 1))
    inputs, labels = _float32(path, "X", x), y.astype(np.int8)
    if len(x) != len(y) or y.shape[1] != len(names) or len(x) < 2 or not x.shape[1] or not len(names):
        shapes = f"X {list(x.shape)}, Y {list(y.shape)}, label_names {list(names.shape)}"
        raise DataError(f"{path}: {shapes}; must be [N, F], [N, C] and [C], with N at least 2")
    part = _stratified(labels == 1, (2 / 3, 1 / 3), np.random.default_rng(seed))
    train, test = (Split(inputs[part == i], labels[part == i]) for i in (0, 1))
    return Dataset(train, test, tuple(names.tolist()))


def musk1(*, data_dir: str, folds: TwoOrMore, fold: NonNegativeInt, seed: NonNegativeInt) -> Dataset:
    """Musk, version 1: 92 molecules, each a bag of 2 to 40 shapes float32 [166]; 47 of them smell of musk.

    data_dir: holds musk1.npz with X [N, 166], bag_id [N] and bag_label [bags].
    folds, fold, seed: of `folds` parts of the bags, drawn by `seed` with the classes alike in each, the test bags are
      part `fold`, from 0; ten-fold is usual.

    What is said is of the bag: columns `bag` and `bag_target`, one-hot over (not musk, musk). No label of a single
    shape is known, of the test rows neither: choose rows by `every`.

    Source: Dietterich, Lathrop and Lozano-Perez 1997, "Solving the multiple instance problem with axis-parallel
    rectangles".
    """
    path = local(data_dir) / "musk1.npz"
    x, bag, positive = read_arrays(path, X=("fiu", 2), bag_id=("iu", 1), bag_label=("biu", 1))
    bags = len(positive)
    if len(x) != len(bag) or not x.shape[1] or not np.array_equal(np.unique(bag), np.arange(bags)):
        shapes = f"X {list(x.shape)}, bag_id {list(bag.shape)}, bag_label {list(positive.shape)}"
        raise DataError(f"{path}: {shapes}; must be [N, F], [N] with each of 0..bags - 1, and [bags]")
    if not 2 <= folds <= bags or fold >= folds:
        raise ValueError(f"folds = {folds}, fold = {fold}: must be 2 to {bags} folds, and one of them from 0")
    order = np.random.default_rng(seed).permutation(bags)
    order = order[np.argsort(positive[order], kind="stable")]  # dealt round, first one class and then the other
    part = np.empty(bags, int)
    part[order] = np.arange(bags) % folds
    columns = {"bag": bag.astype(np.int32), "bag_target": np.eye(2, dtype=np.float32)[positive.astype(int)[bag]]}
    inputs, labels = _float32(path, "X", x), np.full(len(x), -1, np.int32)
    train, test = (
        Split(inputs[rows], labels[rows], {name: column[rows] for name, column in columns.items()})
        for rows in (part[bag] != fold, part[bag] == fold)
    )
    return Dataset(train, test, ("not musk", "musk"))


def _float32(path: object, name: str, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = x.astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{path}: {name} holds numbers beyond float32")
    return found


def _stratified(positive: np.ndarray, shares: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Which part each row of several labels, bool [N, C], goes to: the rarest label that is left is dealt first, each
    row to the part that wants most of it, then to the one that wants most rows."""
    part = np.full(len(positive), -1)
    wanted = np.asarray(shares)[:, None] * np.append(positive.sum(0), len(positive))  # of each label, and rows
    order = rng.permutation(len(positive))

    def deal(row: int, label: int) -> None:
        where = max(range(len(shares)), key=lambda i: (wanted[i, label], wanted[i, -1], rng.random()))
        part[row] = where
        wanted[where] -= np.append(positive[row], True)

    while (counts := positive[part < 0].sum(0)).any():
        rarest = int(np.argmin(np.where(counts > 0, counts, len(positive) + 1)))
        for row in order[(positive[:, rarest] & (part < 0))[order]]:
            deal(row, rarest)
    for row in order[(part < 0)[order]]:
        deal(row, -1)
    return part
