"""Every image with the labels that are known. Sets that fit in memory come as arrays; `tfds` and `folder` decode on
access."""

import contextlib
import functools
import gzip
import math
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import NonNegative, NonNegativeInt, Probability
from labelfx.data import DataError, Dataset, Split
from labelfx.data.decode import load_image
from labelfx.data.decoders import decoded
from labelfx.data.files import LazyImages
from labelfx.data.npy import read_arrays, read_npy, read_npz
from labelfx.data.weak import COLUMNS

DIGITS = tuple("0123456789")
CLOTHES = (*"T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag".split(), "Ankle boot")
CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
DEFLATED = 1032  # bytes that a byte of gzip can hold at most


def digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,415 training and 382 test images [8, 8, 1]; the files ship with the package.

    Pixels 0..16 become round(255 x / 16). The labels show 14 filled-in forms of about 130 digits, one after another,
    by 13 writers whom the file does not name. The test set is the last three forms, from row 1,415 on: at most one hand
    can be on both sides, where a random split would mix them all; 35 to 39 test images a class.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), test part.
    """
    from sklearn.datasets import load_digits  # slow to import, and needed here only

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = (Split(images[rows], data.target[rows]) for rows in (slice(1415), slice(1415, None)))
    return _dataset("digits", train, test, DIGITS)


def digits_corrupted(*, contrast: Probability, noise: NonNegative, seed: NonNegativeInt) -> Dataset:
    """`digits` under a shift, training and test images alike, for a method that adapts to it.

    Pixels x in 0..255 become mean + contrast * (x - mean) + N(0, (255 noise)^2), with the mean of their image, rounded
    and cut to 0..255: after the contrast and Gaussian noise of Hendrycks and Dietterich 2019, "Benchmarking Neural
    Network Robustness to Common Corruptions and Perturbations". The noise is a function of `seed` and the split.
    """
    clean = digits()
    assert clean.test is not None

    def corrupt(split: Split, stream: int) -> Split:
        mean = split.inputs.mean(axis=(1, 2, 3), keepdims=True)
        images = mean + contrast * (split.inputs - mean)
        images += 255 * noise * np.random.default_rng([seed, stream]).standard_normal(images.shape)
        return split._replace(inputs=np.rint(images).clip(0, 255).astype(np.uint8))

    return clean._replace(train=corrupt(clean.train, 0), test=corrupt(clean.test, 1))


def mnist(*, data_dir: str) -> Dataset:
    """MNIST: 60,000 + 10,000 handwritten digits [28, 28, 1] from the four official IDX files, gzipped or not.

    Source: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".
    """
    return _idx_dataset(local(data_dir), "https://storage.googleapis.com/cvdf-datasets/mnist/FILE", DIGITS)


def fashion_mnist(*, data_dir: str) -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes [28, 28, 1] from the four official IDX files, gzipped or not.

    Source: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms".
    """
    return _idx_dataset(local(data_dir), "https://github.com/zalandoresearch/fashion-mnist", CLOTHES)


def cifar10(*, data_dir: str) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 colour images [32, 32, 3] in the official order.

    data_dir: holds the files of cifar-10-binary.tar.gz (or their folder cifar-10-batches-bin), or one lossless WebP
      mosaic a batch (RGB, 100 x 100 tiles, row by row) with labels.npz (train_labels, test_labels). The pickled "python
      version" is refused.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """
    root = local(data_dir)
    if (root / "data_batch_1.webp").exists():
        _require(root, [f"{name}.webp" for name in CIFAR10_BATCHES] + ["labels.npz"], "copy the whole set")
        images = [_cifar10_mosaic(root / f"{name}.webp") for name in CIFAR10_BATCHES]
        integers = {name: ("iu", 1) for name in ("train_labels", "test_labels")}
        train_labels, test_labels = read_arrays(root / "labels.npz", **integers)
    else:
        binary = root / "cifar-10-batches-bin" if (root / "cifar-10-batches-bin").is_dir() else root
        how = "unpack cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html there"
        for pickled in ("cifar-10-batches-py", "data_batch_1", "cifar-10-python.tar.gz"):
            if (root / pickled).exists() and not (binary / "data_batch_1.bin").exists():
                raise ValueError(f"{root / pickled}: pickled, and a pickle can run code when it is loaded; {how}")
        _require(binary, [f"{name}.bin" for name in CIFAR10_BATCHES], how)
        images, labels = zip(*(_cifar10_binary(binary / f"{name}.bin") for name in CIFAR10_BATCHES), strict=True)
        train_labels, test_labels = np.concatenate(labels[:5]), labels[5]
    train, test = Split(np.concatenate(images[:5]), train_labels), Split(images[5], test_labels)
    return _dataset(data_dir, train, test, CIFAR10)


def cifar10n(*, data_dir: str, labels_dir: str) -> Dataset:
    """`cifar10` and, as columns of the training images, the labels that people have given them: CIFAR-10N.

    labels_dir: holds CIFAR-10_human.npz, an export of the published CIFAR-10_human.pt, which is pickled: integers
      [50000] by its names, in the official order of the images.

    The columns are `aggre` (9 % wrong), `random1`, `random2`, `random3` (17 to 18 %) and `worse` (40 %); what is said
    is one of them by `weak=dict(name="column", column="worse", role="label")`.

    Source: Wei et al. 2022, "Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations".
    """
    data = cifar10(data_dir=data_dir)
    path = local(labels_dir) / "CIFAR-10_human.npz"
    names = {"aggre": "aggre_label", **{f"random{i}": f"random_label{i}" for i in (1, 2, 3)}, "worse": "worse_label"}
    clean, *found = read_arrays(path, clean_label=("iu", 1), **dict.fromkeys(names.values(), ("iu", 1)))
    if not np.array_equal(clean, data.train.labels):
        raise DataError(f"{path}: clean_label are not the labels of the images in {data_dir}, in their order")
    for name, labels in zip(names.values(), found, strict=True):
        if labels.shape != clean.shape or labels.min() < 0 or labels.max() >= len(CIFAR10):
            raise DataError(f"{path}: {name} must be a class 0 to 9 of each image")
    columns = {name: labels.astype(np.int32) for name, labels in zip(names, found, strict=True)}
    return data._replace(train=data.train._replace(columns=columns))


def cifar10h(*, data_dir: str, labels_dir: str, seed: NonNegativeInt) -> Dataset:
    """The 10,000 test images of CIFAR-10 with what some 51 people each have said of them: CIFAR-10H.

    labels_dir: holds cifar10h-counts.npy, integers [10000, 10] in the order of the test images.
    seed: of the split, 8,000 to train on and 2,000 to test on.

    The column `target` float32 [N, 10] is the share of people who named a class, of the test images too.

    Source: Peterson, Battleday, Griffiths and Russakovsky 2019, "Human uncertainty makes classification more robust".
    """
    data = cifar10(data_dir=data_dir)
    assert data.test is not None
    path = local(labels_dir) / "cifar10h-counts.npy"
    counts = read_npy(path, "iu", 2)
    if counts.shape != (len(data.test.labels), len(CIFAR10)) or counts.min() < 0 or not counts.any(1).all():
        raise DataError(f"{path}: {counts.dtype} {list(counts.shape)}; must be counts [10000, 10], some in each row")
    target = (counts / counts.sum(1, keepdims=True)).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(counts))
    train, test = (
        Split(data.test.inputs[rows], data.test.labels[rows], {"target": target[rows]})
        for rows in (np.sort(order[:8000]), np.sort(order[8000:]))
    )
    return Dataset(train, test, data.class_names)


def npz(path: str) -> Dataset:
    """Your own arrays: an .npz with train_images, train_labels, test_images, test_labels and, if you like, class_names.

    Images are uint8 [N, H, W] or [N, H, W, C]; in their place may be vectors, floats [N, F], or ids int32 [N, L].
    Labels are integers [N] in 0..classes - 1, or -1 for unknown in the training set; of several labels int8 [N, C] of
    1, 0 and -1; targets of a regression float32 [N] or [N, T], NaN for unknown. class_names are strings [classes], else
    the classes are numbered up to the largest label. Without test_images and test_labels there is nothing to test on.
    Any other train_NAME and test_NAME [N, ...] is the column NAME of the rows.
    """
    own = ("train_", "test_", "class_names")
    arrays = read_npz(local(path), "train_images", "train_labels", also=lambda name: name.startswith(own))
    splits = {}
    for split in ("train", "test"):
        rows = {name.removeprefix(f"{split}_"): array for name, array in arrays.items() if name.startswith(f"{split}_")}
        if split == "test" and not {"images", "labels"} & rows.keys():
            continue
        if missing := [f"{split}_{name}" for name in ("images", "labels") if name not in rows]:
            raise ValueError(f"{path}: no array {missing[0]}")
        inputs, labels = (_npz_rows(f"{path}: {split}_{name}", name, rows.pop(name)) for name in ("images", "labels"))
        columns = {name: _npz_column(f"{path}: {split}_{name}", name, rows[name], len(inputs)) for name in rows}
        splits[split] = Split(inputs, labels, columns)
    names: Any = arrays.get("class_names")
    if names is None:
        names = _numbered(path, [split.labels for split in splits.values()])
    elif names.dtype.kind != "U" or names.ndim != 1:
        raise ValueError(f"{path}: class_names is {names.dtype} {names.shape}; must be strings [classes]")
    return _dataset(path, splits["train"], splits.get("test"), [str(name) for name in names])


def tfds(dataset: str, *, data_dir: str, train_split: str, test_split: str, image_size: NonNegativeInt) -> Dataset:
    """A TensorFlow Datasets set already prepared as ArrayRecord, read without TensorFlow and decoded on access.

    dataset: its folder in `data_dir`: NAME where one version is prepared, else NAME/VERSION or NAME/CONFIG/VERSION.
    train_split, test_split: as TFDS writes them, e.g. "train[:90%]".
    image_size: 0 where all images have one shape; else they are made square as `folder` does, as ImageNet's are.

    The set must have supervised keys (image, label): uint8 images and a ClassLabel, or a sequence of those, several
    labels a row. Labels are read at the start, which passes once over the stored records without decoding images.
    Parquet is refused: TFDS 4.9.10 loses rows in that format.
    """
    import tensorflow_datasets  # slow to import, and needed here only

    _leave_gpus_to_jax()
    root = local(data_dir) / dataset
    # Looked up here, because TFDS answers for an unprepared set with minutes of download attempts.
    prepared = sorted(file.parent for file in root.rglob("dataset_info.json"))
    if not prepared:
        how = f'tfds.builder("{dataset}", data_dir=..., file_format="array_record").download_and_prepare()'
        raise FileNotFoundError(f"{root.absolute()}: no prepared data set there; prepare it with {how}")
    if len(prepared) > 1:
        names = ", ".join(found.relative_to(data_dir).as_posix() for found in prepared)
        raise ValueError(f"{root}: more than one prepared data set; allowed: {names}")
    where = str(prepared[0])
    builder = tensorflow_datasets.builder_from_directory(where)
    file_format, keys, features = builder.info.file_format.value, builder.info.supervised_keys, builder.info.features
    if file_format != "array_record":
        raise ValueError(f'{where}: stored as {file_format}; must be prepared with file_format="array_record"')
    if keys is None or len(keys) != 2:
        raise ValueError(f"{where}: supervised keys are {keys}; must be a pair (image, label)")
    image, label = keys
    of_one = getattr(features[label], "feature", features[label])  # of a sequence
    if not isinstance(of_one, tensorflow_datasets.features.ClassLabel):
        raise ValueError(f"{where}: feature {label!r} is {features[label]}; must be a ClassLabel, or several")
    shape = features[image].shape
    if image_size and isinstance(features[image], tensorflow_datasets.features.Image):
        shape = (image_size, image_size, shape[-1])
    else:
        image_size = 0
    if len(shape) != 3 or None in shape or features[image].np_dtype != np.uint8:
        raise ValueError(
            f"{where}: feature {image!r} is {features[image]}; must be uint8 [H, W, C] of one known shape, or "
            "images for config.data.image_size"
        )
    splits = []
    for split in (train_split, test_split):
        stored = builder.as_data_source(split, decoders={image: tensorflow_datasets.decode.SkipDecoding()})
        source = stored if image_size else builder.as_data_source(split)
        read = functools.partial(_read_tfds, source, image, shape if image_size else None)
        images = LazyImages((len(source), *shape), read)
        labels: Any = [example[label] for example in stored]
        if of_one is not features[label]:
            labels = [np.isin(np.arange(of_one.num_classes), each) for each in labels]
        splits.append(Split(images, np.array(labels, np.int8 if of_one is not features[label] else None)))
    return _dataset(where, splits[0], splits[1], of_one.names)


def _dataset(where: str, train: Split, test: Split | None, class_names: Sequence[str]) -> Dataset:
    """The checked data set; labels of classes become int32."""
    first, splits = train.inputs, []
    for name, split, lowest in (("training", train, -1), ("test", test, 0)):
        if split is None:
            continue
        images, labels, _ = split
        if images.shape[1:] != first.shape[1:]:
            raise ValueError(f"{where}: training images are {first.shape[1:]}, test images {images.shape[1:]}")
        targets, several = labels.dtype.kind == "f", labels.ndim == 2
        alike = targets == (train.labels.dtype.kind == "f") and labels.shape[1:] == train.labels.shape[1:]
        if images.dtype != first.dtype or not alike:
            raise ValueError(f"{where}: {name} images or labels are of another kind than those of training")
        if not 0 < len(images) == len(labels):
            raise ValueError(f"{where}: {len(images)} {name} images, {len(labels)} labels; must be equal and not 0")
        if several and labels.shape[1] != len(class_names):
            raise ValueError(f"{where}: {name} labels are {labels.shape}; must be one for each class name")
        if targets and (np.isinf(labels).any() or (split is test and np.isnan(labels).any())):
            raise ValueError(f"{where}: {name} labels must be finite" + (", or NaN" if split is train else ""))
        highest = 1 if several else len(class_names) - 1
        if not targets and (labels.min() < lowest or labels.max() > highest):
            found, allowed = f"{labels.min()}..{labels.max()}", f"{lowest}..{highest}"
            raise ValueError(f"{where}: {name} labels lie in {found}; allowed {allowed}")
        splits.append(split if several or targets else split._replace(labels=labels.astype(np.int32)))
    return Dataset(splits[0], splits[1] if test is not None else None, tuple(class_names))


def _require(folder: Path, names: Iterable[str], how: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder.absolute()}: no {', '.join(missing)}; {how}")


def _idx_dataset(root: Path, url: str, class_names: tuple[str, ...]) -> Dataset:
    paths = [root / f"{s}-{k}-ubyte" for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    paths = [path if path.exists() else path.with_name(f"{path.name}.gz") for path in paths]
    _require(root, [path.name for path in paths], f"put them there, gzipped or not, from {url}")
    train, test = (Split(_idx(paths[i], 28, 28)[..., None], _idx(paths[i + 1])) for i in (0, 2))
    return _dataset(str(root), train, test, class_names)


def _idx(path: Path, *row_shape: int) -> np.ndarray:
    """uint8 [N, *row_shape] of an IDX file: bytes 0, 0, 8 (uint8), ndim; big-endian uint32 lengths; the values."""
    ndim = 1 + len(row_shape)
    magic, start = bytes([0, 0, 8, ndim]), 4 + 4 * ndim
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            header = stream.read(start)
            if header[:4] != magic or len(header) < start:
                raise DataError(f"{path}: begins with {header.hex()}; must be {magic.hex()} and {ndim} lengths")
            shape = tuple(np.frombuffer(header, ">u4", ndim, 4).tolist())
            if shape[1:] != row_shape:
                raise DataError(f"{path}: header says shape {shape}; must be {('N', *row_shape)}")
            expected, size = math.prod(shape), path.stat().st_size
            if expected > DEFLATED * size:  # before the memory is taken
                raise DataError(f"{path}: header says {expected} values; {size} bytes cannot hold them")
            values = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(values) != expected:
        more = " or more" if len(values) > expected else ""
        raise DataError(f"{path}: header says {expected} values; the file holds {len(values)}{more}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _cifar10_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [10000, 32, 32, 3] and labels [10000]; a record is a label byte, then the planes R, G, B."""
    size = path.stat().st_size
    if size != 10000 * 3073:
        raise DataError(f"{path}: {size} bytes; must be 10000 records of 3073 bytes, {10000 * 3073}")
    records = np.fromfile(path, np.uint8).reshape(10000, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _cifar10_mosaic(path: Path) -> np.ndarray:
    """Images [10000, 32, 32, 3] of a mosaic of 100 x 100 tiles."""
    image = load_image(path)
    if (image.mode, image.size) != ("RGB", (3200, 3200)):
        raise ValueError(f"{path}: {image.mode} {image.size}; must be RGB (3200, 3200)")
    return np.asarray(image).reshape(100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)


def _npz_rows(what: str, name: str, array: np.ndarray) -> np.ndarray:
    """Images, vectors or ids, or labels, as a `Split` has them."""
    kind, ndim, dtype = array.dtype.kind, array.ndim, str(array.dtype)
    if name == "labels":
        if (kind in "iu" and ndim == 1) or (dtype == "int8" and ndim == 2) or (dtype == "float32" and ndim in (1, 2)):
            return array
        allowed = "integers [N], int8 [N, C], float32 [N] or [N, T]"
        raise ValueError(f"{what} is {dtype} {array.shape}; must be {allowed}")
    if dtype == "uint8" and ndim in (3, 4):
        return array[..., None] if ndim == 3 else array
    if dtype == "int32" and ndim == 2 and array.min(initial=0) >= 0:
        return array
    if kind == "f" and ndim == 2:
        with np.errstate(over="ignore"):
            vectors = array.astype(np.float32)
        if np.isfinite(vectors).all():
            return vectors
    allowed = "uint8 [N, H, W] or [N, H, W, C], finite floats [N, F], or ids int32 [N, L] from 0"
    raise ValueError(f"{what} is {dtype} {array.shape}; only {allowed}")


def _npz_column(what: str, name: str, array: np.ndarray, count: int) -> np.ndarray:
    """A column as its name wants it: bool, int8 votes, int32 or float32."""
    kind, nothing = array.dtype.kind, COLUMNS.get(name, 0)
    wanted = "b" if isinstance(nothing, bool) else "biuf"
    if kind not in wanted or not array.ndim or len(array) != count:
        allowed = f"bool [{count}, ...]" if wanted == "b" else f"numbers [{count}, ...]"
        raise ValueError(f"{what} is {array.dtype} {array.shape}; must be {allowed}")
    if kind == "b" and (wanted == "b" or name not in COLUMNS):
        return array
    if kind == "f" or isinstance(nothing, float) or name == "weight":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    bits = 8 if name == "votes" else 32
    if array.size and not (-(2 ** (bits - 1)) <= array.min() and array.max() < 2 ** (bits - 1)):
        raise ValueError(f"{what} lies in {array.min()}..{array.max()}; must fit int{bits}")
    return array.astype(f"int{bits}")


def _numbered(path: str, labels: list[np.ndarray]) -> Sequence[Any]:
    """Numbers for the names of classes, labels or targets."""
    if labels[0].ndim == 2:
        return range(labels[0].shape[1])
    if labels[0].dtype.kind == "f":
        return ()
    every = np.concatenate(labels)
    largest = int(every.max(initial=0))
    if largest >= len(every):
        raise ValueError(f"{path}: a label {largest}, but {len(every)} images; number the classes from 0, or name them")
    return range(largest + 1)


def _read_tfds(source: Any, image: str, shape: tuple[int, int, int] | None, rows: list[int]) -> Iterable[np.ndarray]:
    """`image` of these rows; where it is still encoded, as an array of this shape."""
    found = [example[image] for example in source.__getitems__(rows)]
    if shape is None:
        return found
    images = []
    for row, each in zip(rows, decoded(found, shape), strict=True):
        if isinstance(each, DataError):
            raise DataError(f"image {row} of a prepared split: {each}")
        images.append(each)
    return images


def _leave_gpus_to_jax() -> None:
    """TensorFlow, where TFDS has it imported, would take what JAX has left of the memory of every GPU."""
    if "tensorflow" in sys.modules:
        with contextlib.suppress(RuntimeError):  # too late: it has them already
            sys.modules["tensorflow"].config.set_visible_devices([], "GPU")
