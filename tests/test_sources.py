"""Sources: the real files where they are at hand, tiny ones of every format, and one clear line for damaged ones."""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image
from recipes import recipe, tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.data import DataError, decode, decoders
from labelfx.data.sources import folders
from labelfx.data.sources import images as sources
from labelfx.features import features


def assert_dataset(dataset, train_shape, test_shape, classes):
    for split, shape in ((dataset.train, train_shape), (dataset.test, test_shape)):
        assert split.inputs.shape == shape and split.inputs.dtype == np.uint8 and len(split.inputs) == shape[0]
        assert split.labels.shape == shape[:1] and split.labels.dtype == np.int32
    assert len(dataset.class_names) == classes and all(type(name) is str for name in dataset.class_names)


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture(autouse=True)
def by_threads(monkeypatch):
    """Whatever else this process has decoded before; processes would not see what a test puts in a function's place."""
    monkeypatch.setattr(decoders, "FEW", 10**9)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# The real sets


def test_digits_are_split_between_forms():
    dataset = sources.digits()
    assert_dataset(dataset, (1415, 8, 8, 1), (382, 8, 8, 1), 10)
    test_counts = np.bincount(dataset.test.labels)
    assert np.bincount(dataset.train.labels).tolist() == (np.array(REAL_DIGITS) - test_counts).tolist()
    assert test_counts.min() == 35 and test_counts.max() == 39
    # A writer's form begins 0..9 three times, then 0955; so does the first test row, and the file's first row.
    form = [*range(10)] * 3 + [0, 9, 5, 5]
    assert dataset.train.labels[:34].tolist() == dataset.test.labels[:34].tolist() == form
    levels = np.unique(np.concatenate([dataset.train.inputs, dataset.test.inputs]))
    assert levels.tolist() == [round(x * 255 / 16) for x in range(17)]


REAL_DIGITS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def real(data_root, name):
    folder = data_root / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return str(folder)


def test_real_mnist(data_root):
    dataset = sources.mnist(data_dir=real(data_root, "mnist"))
    assert_dataset(dataset, (60000, 28, 28, 1), (10000, 28, 28, 1), 10)
    assert np.bincount(dataset.train.labels).tolist() == MNIST_TRAIN
    assert np.bincount(dataset.test.labels).tolist() == MNIST_TEST
    assert dataset.train.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_real_fashion_mnist(data_root):
    dataset = sources.fashion_mnist(data_dir=real(data_root, "fashion_mnist"))
    assert_dataset(dataset, (60000, 28, 28, 1), (10000, 28, 28, 1), 10)
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.class_names[9] == "Ankle boot" and dataset.train.labels[0] == 9
    assert abs(dataset.train.inputs.mean() / 255 - 0.2860) < 1e-4  # the published pixel mean


def test_real_cifar10(data_root):
    """sha256 of the pixels as uint8 NHWC in C order, as the copy of the data set was published with."""
    dataset = sources.cifar10(data_dir=real(data_root, "cifar10"))
    assert_dataset(dataset, (50000, 32, 32, 3), (10000, 32, 32, 3), 10)
    digests = [hashlib.sha256(np.ascontiguousarray(split.inputs)).hexdigest() for split in dataset[:2]]
    assert digests == [
        "0db07944bff16a0c9f108a909a64ee3fd408b1a877c82fb26327faa57c9bd1a5",
        "4674ac8c77f372061aaf9216c8857c99599d5df0bb9f6b16a3de613ef8eb348a",
    ]
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert [dataset.class_names[label] for label in dataset.train.labels[:3]] == ["frog", "truck", "truck"]


# IDX files


def idx(array, ndim=None):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, ndim or array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, gzipped=False):
    arrays = {
        "train-images-idx3-ubyte": noise(6, 28, 28),
        "train-labels-idx1-ubyte": np.array([0, 9, 3, 3, 1, 2], np.uint8),
        "t10k-images-idx3-ubyte": noise(2, 28, 28, seed=1),
        "t10k-labels-idx1-ubyte": np.array([9, 0], np.uint8),
    }
    for name, array in arrays.items():
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("gzipped", [False, True])
def test_idx(tmp_path, gzipped):
    arrays = write_idx(tmp_path, gzipped)
    dataset = sources.mnist(data_dir=str(tmp_path))
    assert_dataset(dataset, (6, 28, 28, 1), (2, 28, 28, 1), 10)
    np.testing.assert_array_equal(dataset.train.inputs[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.train.labels, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.test.inputs[..., 0], arrays["t10k-images-idx3-ubyte"])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train-images-idx3-ubyte", idx(noise(6, 28, 28), ndim=1), "must be 00000803 and 3 lengths"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0", "begins with 000008030000"),
        ("train-images-idx3-ubyte", b"", "begins with ;"),
        ("train-images-idx3-ubyte", idx(noise(6, 28, 27)), "header says shape (6, 28, 27); must be ('N', 28, 28)"),
        ("train-images-idx3-ubyte", idx(noise(6, 28, 28))[:-1], "header says 4704 values; the file holds 4703"),
        ("train-images-idx3-ubyte", idx(noise(6, 28, 28)) + b"\0", "header says 4704 values; the file holds 4705"),
        ("train-images-idx3-ubyte", idx(noise(5, 28, 28)), "5 training images, 6 labels; must be equal and not 0"),
        ("t10k-labels-idx1-ubyte", idx(np.array([1, 10], np.uint8)), "test labels lie in 1..10; allowed 0..9"),
    ],
)
def test_damaged_idx(tmp_path, name, content, expected):
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        sources.fashion_mnist(data_dir=str(tmp_path))
    assert expected in message_of(error) and str(tmp_path) in message_of(error)


def test_truncated_or_foreign_gzip(tmp_path):
    write_idx(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-500], b"<html>404</html>", whole[:40] + b"\xff" * 400 + whole[440:]):
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            sources.mnist(data_dir=str(tmp_path))
        assert message_of(error).startswith(f"{path}: cannot be read")


def test_missing_idx_files_are_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError) as error:
        sources.fashion_mnist(data_dir=str(tmp_path))
    assert message_of(error) == (
        f"{tmp_path}: no t10k-labels-idx1-ubyte.gz; put them there, gzipped or not, "
        "from https://github.com/zalandoresearch/fashion-mnist"
    )


# CIFAR-10


def write_cifar10_binary(folder):
    """Full-sized files, sparse: three records in front, black images of class 0 behind."""
    folder.mkdir(exist_ok=True)
    images, labels = noise(6, 3, 32, 32, 3), noise(6, 3, seed=1) % 10
    for batch, name in enumerate(sources.CIFAR10_BATCHES):
        with open(folder / f"{name}.bin", "wb") as stream:
            for image, label in zip(images[batch], labels[batch], strict=True):
                stream.write(bytes([label]))
                for plane in range(3):
                    stream.write(bytes(image[row, column, plane] for row in range(32) for column in range(32)))
            stream.truncate(10000 * 3073)
    return images, labels


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path, subfolder):
    images, labels = write_cifar10_binary(tmp_path / subfolder)
    (tmp_path / "cifar-10-python.tar.gz").touch()  # does not matter beside the binary files
    dataset = sources.cifar10(data_dir=str(tmp_path))
    assert_dataset(dataset, (50000, 32, 32, 3), (10000, 32, 32, 3), 10)
    for batch in range(5):
        np.testing.assert_array_equal(dataset.train.inputs[batch * 10000 :][:3], images[batch])
        np.testing.assert_array_equal(dataset.train.labels[batch * 10000 :][:3], labels[batch])
    np.testing.assert_array_equal(dataset.test.inputs[:3], images[5])
    np.testing.assert_array_equal(dataset.test.labels[:3], labels[5])
    assert not dataset.train.inputs[3:10000].any()

    damaged = tmp_path / subfolder / "data_batch_4.bin"
    with open(damaged, "r+b") as stream:
        stream.write(bytes([10]))
    with pytest.raises(ValueError, match=r"training labels lie in 0\.\.10; allowed -1\.\.9"):
        sources.cifar10(data_dir=str(tmp_path))
    with open(damaged, "r+b") as stream:
        stream.truncate(9999 * 3073)
    with pytest.raises(ValueError) as error:
        sources.cifar10(data_dir=str(tmp_path))
    assert "data_batch_4.bin: 30726927 bytes; must be 10000 records of 3073 bytes, 30730000" in message_of(error)
    damaged.unlink()
    with pytest.raises(FileNotFoundError, match="no data_batch_4.bin; unpack cifar-10-binary.tar.gz"):
        sources.cifar10(data_dir=str(tmp_path))


@pytest.mark.parametrize("pickled", ["cifar-10-batches-py", "data_batch_1", "cifar-10-python.tar.gz"])
def test_pickled_cifar10_is_refused(tmp_path, pickled):
    (tmp_path / pickled).touch()
    with pytest.raises(ValueError) as error:
        sources.cifar10(data_dir=str(tmp_path))
    assert pickled in message_of(error) and "unpack cifar-10-binary.tar.gz from https://" in message_of(error)


def test_missing_cifar10_names_every_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        sources.cifar10(data_dir=str(tmp_path))
    assert all(f"{name}.bin" in message_of(error) for name in sources.CIFAR10_BATCHES)


def test_cifar10_mosaics(tmp_path):
    Image.new("RGB", (3200, 3200)).save(tmp_path / "data_batch_1.webp", lossless=True, method=0)
    with pytest.raises(FileNotFoundError, match="no data_batch_2.webp, .*, labels.npz; copy the whole set"):
        sources.cifar10(data_dir=str(tmp_path))
    np.savez(tmp_path / "labels.npz", train_labels=np.zeros(50000, np.uint8), test_labels=np.zeros(10000, np.uint8))
    for name in sources.CIFAR10_BATCHES[1:]:
        (tmp_path / f"{name}.webp").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="data_batch_2.webp: cannot be read as an image"):
        sources.cifar10(data_dir=str(tmp_path))
    Image.new("RGB", (320, 320)).save(tmp_path / "data_batch_2.webp", lossless=True)
    with pytest.raises(ValueError, match=r"data_batch_2.webp: RGB \(320, 320\); must be RGB \(3200, 3200\)"):
        sources.cifar10(data_dir=str(tmp_path))


# npz


def write_npz(path, **changes):
    arrays = {
        "train_images": noise(5, 4, 6),
        "train_labels": np.array([2, -1, 0, 1, -1]),
        "test_images": noise(2, 4, 6, seed=1),
        "test_labels": np.array([1, 2], np.uint8),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_npz(tmp_path):
    path = write_npz(tmp_path / "own.npz")
    dataset = sources.npz(path)
    assert_dataset(dataset, (5, 4, 6, 1), (2, 4, 6, 1), 3)
    np.testing.assert_array_equal(dataset.train.inputs[..., 0], noise(5, 4, 6))
    assert dataset.train.labels.tolist() == [2, -1, 0, 1, -1] and dataset.class_names == ("0", "1", "2")
    names = np.array(["a", "bb", "c", "d"])
    path = write_npz(path, train_images=noise(5, 4, 6, 3), test_images=noise(2, 4, 6, 3), class_names=names)
    dataset = sources.npz(path)
    assert_dataset(dataset, (5, 4, 6, 3), (2, 4, 6, 3), 4)
    assert dataset.class_names == ("a", "bb", "c", "d")


def test_npz_of_any_rows_labels_and_columns(tmp_path):
    vectors = {"train_images": np.eye(5), "test_images": np.eye(5)[:2]}
    several = {
        "train_labels": np.int8([[1, 0], [0, -1], [1, 1], [-1, -1], [0, 0]]),
        "test_labels": np.int8([[1, 0]] * 2),
    }
    columns = {"train_votes": np.full((5, 3), -1), "train_bag": np.arange(5), "train_flagged": np.arange(5) > 3}
    columns |= {"train_weight": np.ones(5, int), "train_mine": np.ones((5, 2)), "test_bag": np.arange(2)}
    found = sources.npz(write_npz(tmp_path / "own.npz", **vectors, **several, **columns))
    assert found.task == "several" and found.class_names == ("0", "1")
    assert found.train.inputs.dtype == np.float32 and found.train.inputs.shape == (5, 5)
    kinds = {"votes": "int8", "bag": "int32", "flagged": "bool", "weight": "float32", "mine": "float32"}
    assert {name: str(column.dtype) for name, column in found.train.columns.items()} == kinds
    assert found.test.columns.keys() == {"bag"}
    ids = {"train_images": np.zeros((5, 7), np.int32), "test_images": None, "test_labels": None}
    found = sources.npz(write_npz(tmp_path / "own.npz", **ids, train_labels=np.float32([0, 1, np.nan, 2, 3])))
    assert found.task == "target" and found.test is None and found.train.inputs.dtype == np.int32


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_votes": np.full((5, 3), 200)}, "train_votes lies in 200..200; must fit int8"),
        ({"train_bag": np.arange(4)}, "train_bag is int64 (4,); must be numbers [5, ...]"),
        ({"train_candidates": np.ones((5, 3))}, "train_candidates is float64 (5, 3); must be bool [5, ...]"),
        ({"test_labels": np.float32([1, 0])}, "test images or labels are of another kind than those of training"),
        ({"test_images": np.zeros((2, 3))}, "training images are (4, 6, 1), test images (3,)"),
        ({"train_images": np.full((5, 4), np.inf)}, "train_images is float64 (5, 4); only uint8"),
        ({"test_images": None}, "no array test_images"),
        ({"train_labels": np.zeros((5, 2), np.int8)}, "labels are of another kind than those of training"),
        (
            {"train_labels": np.zeros((5, 3), np.int8), "test_labels": np.int8([[1, 0, 0], [1, 0, -1]])},
            "test labels lie in -1..1; allowed 0..1",
        ),
        (
            {"train_labels": np.zeros((5, 3), np.int8), "class_names": np.array(["a", "b"])},
            "training labels are (5, 3); must be one for each class name",
        ),
        (
            {"train_labels": np.zeros(5, np.float32), "test_labels": np.float32([1, np.nan])},
            "test labels must be finite",
        ),
        ({"train_labels": np.array([0, 1, "x", 1, 1], object)}, "must be an .npz of plain arrays, nothing pickled"),
        ({"class_names": np.array([["a"], 3, 1], object)}, "must be an .npz of plain arrays, nothing pickled"),
        ({"test_labels": None}, "no array test_labels"),
        ({"test_labels": np.array([0, -1])}, "test labels lie in -1..0; allowed 0..2"),
        ({"train_labels": np.array([0, 1, 2, 1, -2])}, "training labels lie in -2..2; allowed -1..2"),
        ({"train_labels": np.array([0, 1, 2, 1])}, "5 training images, 4 labels; must be equal and not 0"),
        ({"train_labels": np.zeros(5)}, "train_labels is float64 (5,); must be integers [N]"),
        ({"train_labels": np.zeros((5, 1), int)}, "train_labels is int64 (5, 1); must be integers [N]"),
        ({"class_names": np.array(["a", "b"])}, "training labels lie in -1..2; allowed -1..1"),
        ({"train_labels": np.array([0, 1, 4 * 10**9, 1, 1])}, "a label 4000000000, but 7 images; number the classes"),
        ({"train_images": np.zeros((5, 4, 6))}, "train_images is float64 (5, 4, 6); only uint8"),
        ({"test_images": noise(2, 24)}, "test_images is uint8 (2, 24); only uint8 [N, H, W]"),
        ({"test_images": noise(2, 6, 6)}, "training images are (4, 6, 1), test images (6, 6, 1)"),
        ({"test_images": noise(0, 4, 6), "test_labels": np.zeros(0, int)}, "0 test images, 0 labels"),
    ],
)
def test_damaged_npz(tmp_path, changes, expected):
    path = write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(ValueError) as error:
        sources.npz(path)
    assert expected in message_of(error) and path in message_of(error)


def test_npz_never_loads_a_pickle(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "trap.npz"
    np.save(tmp_path / "array.npy", noise(3))
    for content in (pickle.dumps(Trap()), b"", b"PK\x03\x04 cut", (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="nothing pickled"):
            sources.npz(str(path))
    write_npz(path, train_labels=np.array([Trap()] * 5, object))
    with pytest.raises(ValueError, match="nothing pickled"):
        sources.npz(str(path))
    assert not (tmp_path / "sprung").exists()


def test_missing_npz(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz: no such file; it should be an .npz with train_images"):
        sources.npz(str(tmp_path / "nowhere.npz"))


# Folders of images


def write_image(path, pixels, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **save)


def write_split_folder(root):
    """Two training images a class, one test image a class, three without a label."""
    for seed, name in enumerate(
        "train/dog/b.png train/dog/a.png train/cat/x.bmp train/cat/deep/y.PNG "
        "test/dog/a.png test/cat/z.webp unlabelled/2.png unlabelled/10.png unlabelled/more/1.png".split()
    ):
        write_image(root / name, noise(8, 8, 3, seed=seed), **({"lossless": True} if name.endswith("webp") else {}))


LABELLED = ("train/cat/x.bmp", "train/cat/deep/y.PNG", "train/dog/a.png", "train/dog/b.png")


def test_a_folder_that_waits_for_its_first_labels(tmp_path):
    """What there is to test on says the classes."""
    write_split_folder(tmp_path)
    for name in LABELLED:
        (tmp_path / name).unlink()
    dataset = folders.folder(str(tmp_path), image_size=8, channels=3)
    assert dataset.class_names == ("cat", "dog") and dataset.task == "class"
    assert dataset.train.labels.tolist() == [-1] * 3 and dataset.test.labels.tolist() == [0, 1]
    (tmp_path / "test/cat/z.webp").unlink()
    with pytest.raises(ValueError, match=r"images of 1 classes \['dog'\]; at least 2 are needed"):
        folders.folder(str(tmp_path), image_size=8, channels=3)


def test_folder_with_its_own_split(tmp_path):
    write_split_folder(tmp_path)
    (tmp_path / "train/dog/.hidden.txt").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/c.png").touch()
    dataset = folders.folder(str(tmp_path), image_size=8, channels=3)
    assert_dataset(dataset, (7, 8, 8, 3), (2, 8, 8, 3), 2)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert dataset.test.labels.tolist() == [0, 1]
    # Seeds in the order of the sorted names: cat/deep/y, cat/x, dog/a, dog/b; 10, 2, more/1; test cat/z, dog/a.
    for images, seeds in ((dataset.train.inputs, (3, 2, 1, 0, 7, 6, 8)), (dataset.test.inputs, (5, 4))):
        everything = np.stack([noise(8, 8, 3, seed=seed) for seed in seeds])
        np.testing.assert_array_equal(images[np.arange(len(seeds))], everything)


def test_lazy_images_index_as_an_array_does(tmp_path):
    write_split_folder(tmp_path)
    images = folders.folder(str(tmp_path), image_size=8, channels=1).train.inputs
    whole = images[:]
    assert whole.shape == (7, 8, 8, 1) and whole.dtype == np.uint8
    mask = np.array([True, False, False, True, False, False, True])
    for rows in (np.array([6, 0, 0, 3]), slice(1, 6, 2), mask, -1, np.array([[1, 2], [3, 4]]), np.array([], int)):
        np.testing.assert_array_equal(images[rows], whole[rows])
    with pytest.raises(IndexError):
        images[np.array([0, 7])]
    # Worker processes receive the object this way.
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))[1:3], whole[1:3])


def open_folder(root):
    return folders.folder(str(root), image_size=8, channels=3)


def hurt(path):
    """Damage inside a PNG, which its header and its end do not show."""
    content = path.read_bytes()
    middle = content.index(b"IDAT") + 20
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def test_folder_decodes_only_on_access(tmp_path):
    write_split_folder(tmp_path)
    images = open_folder(tmp_path).train.inputs
    assert images[:4].shape == (4, 8, 8, 3)
    hurt(tmp_path / "train/dog/b.png")
    with pytest.raises(ValueError) as error:
        images[2:7]
    assert message_of(error).startswith(f"{tmp_path / 'train/dog/b.png'}: cannot be read as an image")


@pytest.mark.parametrize("known_at_once", [True, False])
def test_unlabelled_images_that_cannot_be_read_are_left_out(tmp_path, caplog, known_at_once):
    write_split_folder(tmp_path)
    path = tmp_path / "unlabelled/11.png"
    write_image(path, noise(8, 8, 3))
    if known_at_once:
        path.write_bytes(b"not an image")
    else:
        hurt(path)
    images = open_folder(tmp_path).train.inputs
    assert len(caplog.messages) == known_at_once
    rows = images[4:]  # 10, 11, 2 and more/1
    np.testing.assert_array_equal(rows[1], rows[2])
    np.testing.assert_array_equal(images[5], rows[2])
    np.testing.assert_array_equal(open_folder(tmp_path).train.inputs[4:], rows)
    (line,) = caplog.messages  # once a process
    assert line == (
        f"{tmp_path}: 1 of 10 files left out: unlabelled/11.png: cannot be read as an image (of no known format)"
        if known_at_once
        else f"{path}: cannot be read as an image (wrong checksum in b'IDAT'); left out"
    )
    for path in (tmp_path / "unlabelled").rglob("*.png"):
        path.write_bytes(b"not an image")
    for opened_then in (images, open_folder(tmp_path).train.inputs):
        with pytest.raises(
            ValueError, match=r"not one of its unlabelled images can be read \(the first: .*/10.png: cannot"
        ):
            opened_then[4]


def test_what_is_left_out_is_said_in_the_order_of_the_rows(tmp_path, caplog, monkeypatch, opened):
    """And is the same whichever thread is done first."""
    write_split_folder(tmp_path)
    for name in ("10.png", "2.png"):
        hurt(tmp_path / "unlabelled" / name)
    for name in ("1.png", "3.png"):
        (tmp_path / "unlabelled" / name).write_bytes(b"not an image")

    def slow_at_first(read):
        def slow(path, *shape):
            time.sleep(0.2 * (path.name in ("1.png", "10.png")))
            return read(path, *shape)

        return slow

    for where, name in READERS:
        monkeypatch.setattr(where, name, slow_at_first(getattr(where, name)))
    images = open_folder(tmp_path).train.inputs
    opened["clear"]()
    rows = images[4:]  # 1, 10, 2, 3 and more/1
    assert "10.png" in opened["decode"] and "3.png" not in opened["decode"]
    np.testing.assert_array_equal(rows, np.repeat(rows[-1:], 5, 0))
    assert "2 of 11 files left out: unlabelled/1.png, unlabelled/3.png: cannot" in caplog.messages[0]
    assert [line.split(": ")[0][-6:] for line in caplog.messages[1:]] == ["10.png", "/2.png"]


def test_odd_files_are_named_at_once(tmp_path, caplog):
    """What is no image is left out wherever it lies; a labelled or test image that cannot be read stops the run."""
    write_split_folder(tmp_path)
    for name in ("README.md", "train/notes.txt", "test/dog/Thumbs.db", "unlabelled/a b/desktop.ini"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    deep = np.arange(16, dtype=np.float32).reshape(4, 4)
    write_image(tmp_path / "unlabelled/deep.tif", deep)
    for name in ("scan.AVIF", "photo.heic"):
        (tmp_path / "unlabelled" / name).touch()
    formats = "only .png .jpg .jpeg .webp .bmp .gif .tif .tiff are read"
    odd = (
        f"{tmp_path}: 7 of 16 files left out: README.md, test/dog/Thumbs.db, train/notes.txt, "
        "unlabelled/a b/desktop.ini: not an image; unlabelled/deep.tif: pixels are of mode F; must have 8 or 16 bits a "
        f"channel; unlabelled/photo.heic, unlabelled/scan.AVIF: {formats}"
    )
    for _ in range(3):  # as the runs of a benchmark do
        assert len(open_folder(tmp_path).train.labels) == 8
    assert caplog.messages == [odd]
    (tmp_path / "train/cat/photo.heic").touch()
    write_image(tmp_path / "test/dog/deep.tif", deep)
    hurt(tmp_path / "test/dog/a.png")
    hurt(tmp_path / "train/dog/b.png")
    with pytest.raises(ValueError) as error:
        open_folder(tmp_path)
    assert message_of(error) == (
        f"{tmp_path}: 4 labelled or test images cannot be read; mend or remove them: test/dog/a.png, train/dog/b.png: "
        "cannot be read as an image (wrong checksum in b'IDAT'); test/dog/deep.tif: pixels are of mode F; must have "
        f"8 or 16 bits a channel; train/cat/photo.heic: {formats}"
    )
    assert caplog.messages == [odd, odd.replace("of 16", "of 18")]


def test_a_line_has_no_end_of_names(tmp_path, caplog):
    write_split_folder(tmp_path)
    for i in range(45):
        (tmp_path / f"unlabelled/{i:02}\n.png").touch()
    open_folder(tmp_path)
    (line,) = caplog.messages
    assert "45 of 54 files left out: unlabelled/00 .png, unlabelled/01 .png," in line
    assert "unlabelled/19 .png and 25 more: cannot be read as an image (of no known format)" in line


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were decoded or of which the header was read, since it was cleared."""
    found = {"decode": set(), "check_header": set(), "clear": lambda: [found[name].clear() for _, name in READERS]}

    def noted(name, real):
        def read(path, *shape):
            found[name].add(path.name)
            return real(path, *shape)

        return read

    for where, name in READERS:
        monkeypatch.setattr(where, name, noted(name, getattr(where, name)))
    return found


READERS = ((decoders, "decode"), (folders, "check_header"))


def age(root):
    """As if nothing had been written in the last minute."""
    for path in root.rglob("*.*"):
        os.utime(path, ns=(path.stat().st_mtime_ns - 60 * 10**9,) * 2)


def test_what_can_be_read_is_looked_at_once(tmp_path, opened, monkeypatch):
    """By name, size and time; what cannot be is looked at again, as it may be mended without a trace."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    write_split_folder(root)
    (root / "unlabelled/empty.png").touch()
    labelled, unlabelled = {"a.png", "b.png", "x.bmp", "y.PNG", "z.webp"}, {"1.png", "2.png", "10.png"}

    def looked_at(decoded, headers):
        opened["clear"]()
        open_folder(root)
        assert (opened["decode"], opened["check_header"] - {"empty.png"}) == (decoded, headers)
        assert "empty.png" in opened["check_header"]

    looked_at(labelled, unlabelled)
    looked_at(labelled, unlabelled)  # written just now: what comes next may bear the same time
    age(root)
    looked_at(labelled, unlabelled)
    looked_at(set(), set())
    (link := tmp_path / "link").symlink_to(root)
    opened["clear"]()
    open_folder(link)
    assert not opened["decode"]

    path = root / "test/cat/z.webp"
    before = path.stat()
    path.write_bytes(path.read_bytes() + b"0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    looked_at({"z.webp"}, set())

    hurt(root / "train/dog/b.png")
    os.utime(root / "train/dog/b.png", ns=(0, 0))
    (root / "unlabelled/2.png").rename(root / "unlabelled/3.png")
    opened["clear"]()
    with pytest.raises(ValueError, match=r"1 labelled or test images cannot be read; .*: train/dog/b.png: cannot"):
        open_folder(root)
    assert (opened["decode"], opened["check_header"]) == ({"b.png"}, {"3.png", "empty.png"})
    (file,) = (tmp_path / "cache/labelfx/folders").iterdir()
    assert "train/dog/b.png" not in json.loads(file.read_text()) and "2.png" not in file.read_text()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"test/dog/a.png": {}}', b'{"test/dog/a.png": [1e999, NaN]}', b"[" * 10**5, b"\xff"]
)
def test_a_damaged_cache_is_made_anew(tmp_path, opened, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    write_split_folder(root)
    age(root)
    open_folder(root)
    (file,) = (tmp_path / "cache/labelfx/folders").iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    opened["clear"]()
    open_folder(root)
    assert opened["decode"] == {"a.png", "b.png", "x.bmp", "y.PNG", "z.webp"} and file.read_bytes() == whole


def test_without_a_cache_all_is_read(tmp_path, opened, monkeypatch):
    write_split_folder(tmp_path)
    age(tmp_path)
    (tmp_path / ".file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".file"))  # where no folder can be made
    for _ in range(2):
        opened["clear"]()
        open_folder(tmp_path)
        assert len(opened["decode"]) == 5


def test_headers_and_ends(tmp_path):
    """A file that is cut short shows without decoding, and nothing is refused that can be decoded."""
    for kind in ("png", "jpeg"):
        path = tmp_path / f"x.{kind}"
        write_image(path, noise(6, 6, 3))
        content = path.read_bytes()
        for tail in (b"", b"something of a camera's", content):
            path.write_bytes(content + tail)
            decode.check_header(path)
            decode.decode(path, (6, 6, 3))
        for length in {*range(0, len(content), 7), *range(len(content))[-12:]}:
            path.write_bytes(content[:length])
            with pytest.raises(DataError, match=f"x.{kind}: cannot be read as an image"):
                decode.check_header(path)


def test_a_folder_that_takes_its_time_says_so(tmp_path, capsys, monkeypatch):
    write_split_folder(tmp_path)
    open_folder(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(decode, "FEW", 8)
    monkeypatch.setattr(decode, "AHEAD", 4)
    open_folder(tmp_path)
    assert capsys.readouterr().err == f"reading 9 images of {tmp_path}\n"
    monkeypatch.setattr(decode, "SECONDS", 0)
    open_folder(tmp_path)
    lines = [f"read {i} of 9 images of {tmp_path}" for i in range(1, 10)]
    assert capsys.readouterr().err.splitlines() == [f"reading 9 images of {tmp_path}", *lines]


def plain_folder(root, count):
    for label, name in enumerate(("cat", "dog", "owl")):
        for i in range(count):
            write_image(root / name / f"{i:03}.png", np.full((2, 2), 80 * label + i, np.uint8))
    return folders.folder(str(root), image_size=2, channels=1)


def contents(split):
    """Grey level and label of every row."""
    return list(zip(split.inputs[:][:, 0, 0, 0].tolist(), split.labels.tolist(), strict=True))


def test_plain_folder_is_split_by_the_hash_of_the_names(tmp_path):
    dataset = plain_folder(tmp_path, 40)
    expected = {"train": [], "test": []}
    for label, name in enumerate(("cat", "dog", "owl")):
        for i in range(40):
            number = int(hashlib.sha256(f"{name}/{i:03}.png".encode()).hexdigest()[:16], 16)
            expected["test" if 5 * number < 2**64 else "train"].append((80 * label + i, label))
    for split in ("train", "test"):
        assert contents(getattr(dataset, split)) == expected[split]
    assert 0.1 < len(dataset.test.labels) / 120 < 0.3

    more = plain_folder(tmp_path, 60)  # the old images stay where they were
    for split in ("train", "test"):
        assert set(expected[split]) < set(contents(getattr(more, split)))


def test_unlabelled_images_beside_plain_classes(tmp_path):
    write_image(tmp_path / "unlabelled/u.png", np.full((2, 2), 255, np.uint8))
    dataset = plain_folder(tmp_path, 40)
    assert dataset.class_names == ("cat", "dog", "owl")
    assert dataset.train.labels[-1] == -1 and (dataset.train.labels[:-1] >= 0).all()
    assert (dataset.train.inputs[-1] == 255).all()


def test_images_in_the_folder_itself_are_unlabelled(tmp_path):
    """Beside plain classes, and before those of `unlabelled` in the order of names."""
    write_image(tmp_path / "unlabelled/u.png", np.full((2, 2), 255, np.uint8))
    write_image(tmp_path / "loose.png", np.full((2, 2), 254, np.uint8))
    dataset = plain_folder(tmp_path, 40)
    assert contents(dataset.train)[-2:] == [(254, -1), (255, -1)]
    assert (dataset.train.labels[:-2] >= 0).all() and len(dataset.test.labels)


@pytest.mark.parametrize("below", ["", "unlabelled/", "unlabelled/a/"])
def test_a_folder_without_a_class(tmp_path, caplog, below):
    for i in range(5):
        write_image(tmp_path / f"{below}{i}.png", np.full((2, 2), i, np.uint8))
    (tmp_path / f"{below}3.png").write_bytes(b"not an image")
    (tmp_path / f"{below}Thumbs.db").touch()
    dataset = folders.folder(str(tmp_path), image_size=2, channels=1)
    assert dataset.test is None and dataset.class_names == () and dataset.task == "none"
    assert contents(dataset.train) == [(0, -1), (1, -1), (2, -1), (4, -1), (4, -1)]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: 2 of 6 files left out: {below}3.png: cannot be read as an image")
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"images of 0 classes \[\]; at least 2 are needed \(.*Thumbs.db: not an image"
    ):
        folders.folder(str(tmp_path), image_size=2, channels=1)


MLP = {"name": "mlp", "hidden": (4,), "dtype": "float32"}  # compiles fastest


def test_training_without_a_label(tmp_path, capsys):
    """On a flat folder, with evals that need none; what needs labels is named before the first step."""
    rng = np.random.default_rng(0)
    for i in range(20):
        write_image(tmp_path / f"images/{i}.png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
    data = {"name": f"folder:{tmp_path / 'images'}", "image_size": 8, "channels": 1}
    config = tiny("simclr", data=data, labels={"name": "none"}, model=MLP, evals={"rankme": {}})
    found = labelfx.train(config, tmp_path / "run")
    assert found["metrics"]["rankme"]["n"] == 20 and found["labels"]["n"] == 0
    names, found = features(tmp_path / "run", "train", tmp_path / "found.npz")
    assert len(found) == 20
    of_folder = features(tmp_path / "run", tmp_path / "images", tmp_path / "found.npz")[1]
    np.testing.assert_allclose(of_folder, found, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="--images=test: the run's data have no test split"):
        features(tmp_path / "run", "test", tmp_path / "found.npz")
    capsys.readouterr()
    for changes, expected in (
        ({"evals": {"linear_probe": {}}}, "config.evals.linear_probe: 'folder:.*' has no classes"),
        ({"labels": {"name": "all_labels"}}, "config.labels: no training row has a label: .* the view none asks for"),
        ({"method": recipe("supervised")["method"]}, "config.method.name = .supervised.: needs classes"),
    ):
        with pytest.raises(ConfigError, match=expected):
            labelfx.train(config | changes, tmp_path / "other")
    assert "step" not in capsys.readouterr().err


def decoded(folder, image_size, channels):
    for name in ("train/a/1.png", "test/a/1.png", "train/b/1.png", "test/b/1.png"):
        write_image(folder / name, noise(2, 2))
    return folders.folder(str(folder), image_size=image_size, channels=channels).train.inputs[0]


def resampled(length, side, out):
    """[out, length] weights of Keys' cubic (a = -1/2), widened when it shrinks, over the central `side` pixels."""
    scale = side / out
    weights = np.zeros((out, length))
    for i in range(out):
        centre = (length - side) / 2 + (i + 0.5) * scale
        for pixel in range(length):
            t = abs(pixel + 0.5 - centre) / max(scale, 1)
            if t < 1:
                weights[i, pixel] = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weights[i, pixel] = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "size"), [(6, 11, 6), (20, 13, 4), (12, 36, 5), (4, 4, 9)])
def test_short_side_is_resized_and_the_central_square_cropped(tmp_path, height, width, size):
    pixels = noise(height, width) // 2 + 64  # no overshoot to clip
    write_image(tmp_path / "train/a/0.png", pixels)
    short = min(height, width)
    expected = resampled(height, short, size) @ pixels @ resampled(width, short, size).T
    np.testing.assert_allclose(decoded(tmp_path, size, 1)[..., 0], expected, atol=1.01)  # two roundings to 8 bits


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    pixels = noise(8, 8, 3)
    write_image(tmp_path / "train/a/0.png", pixels, exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path, 8, 3), np.rot90(pixels, -1))


def test_grey_colour_palette_and_transparency(tmp_path):
    grey, colour = noise(4, 4), noise(4, 4, 3, seed=1)
    path = tmp_path / "train/a/0.png"
    write_image(path, grey)
    np.testing.assert_array_equal(decoded(tmp_path, 4, 3), np.repeat(grey[..., None], 3, 2))
    write_image(path, np.concatenate([colour, grey[..., None]], 2))
    np.testing.assert_array_equal(decoded(tmp_path, 4, 3), colour)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    np.testing.assert_allclose(decoded(tmp_path, 4, 1)[..., 0], luma, atol=1)
    palette = Image.fromarray(colour).quantize(8)
    palette.save(path, transparency=bytes(range(8)))
    np.testing.assert_array_equal(decoded(tmp_path, 4, 3), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_the_range_of_sixteen_bits_becomes_that_of_eight(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 2**16, (4, 4)).astype(np.uint16)
    pixels[0, :2] = 0, 2**16 - 1
    write_image(tmp_path / f"train/a/0.{kind}", pixels)
    np.testing.assert_array_equal(decoded(tmp_path, 4, 1)[..., 0], pixels // 256)
    np.testing.assert_array_equal(decoded(tmp_path, 4, 3), np.repeat(pixels[..., None] // 256, 3, 2))
    for dtype, mode in ((np.int32, "I"), (np.float32, "F")):
        write_image(tmp_path / "train/a/0.tif", pixels.astype(dtype))
        with pytest.raises(ValueError, match=f"0.tif: pixels are of mode {mode}; must have 8 or 16 bits a channel"):
            decoded(tmp_path, 4, 1)


@pytest.mark.parametrize("kind", ["gif", "tif"])
def test_the_first_frame_or_page_is_read(tmp_path, kind):
    frames = [Image.fromarray(noise(4, 4, seed=seed)) for seed in range(3)]
    path = tmp_path / f"train/a/0.{kind}"
    path.parent.mkdir(parents=True)
    frames[0].save(path, save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(tmp_path, 4, 1)[..., 0], np.asarray(frames[0]))
    frames[0].save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 9):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"0.{kind}: cannot be read as an image"):
            decode.decode(path, (4, 4, 1))


def test_decompression_bomb_is_one_line(tmp_path, monkeypatch):
    write_image(tmp_path / "train/a/0.png", noise(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError) as error:
        decoded(tmp_path, 4, 1)
    assert "0.png: cannot be read as an image" in message_of(error) and "decompression bomb" in message_of(error)


def test_truncated_image_is_named(tmp_path):
    path = tmp_path / "train/a/0.png"
    write_image(path, noise(64, 64))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"0\.png: cannot be read as an image"):
        decoded(tmp_path, 4, 1)


@pytest.mark.parametrize(
    ("extra", "missing", "expected"),
    [
        ("loose.png", (), "loose.png: must lie in train/CLASS/, test/CLASS/ or unlabelled/"),
        ("train/loose.png", (), "loose.png: must lie in train/CLASS/, test/CLASS/ or unlabelled/"),
        ("owl/1.png", (), "1.png: must lie in train/CLASS/, test/CLASS/ or unlabelled/"),
        ("train/owl/1.png", (), "no test image of 'owl'"),
        ("test/owl/1.png", (), "no train image of 'owl'"),
        ("train/owl/1.png", ("test/dog/a.png",), "no test image of 'dog', 'owl'"),
        ("train/unlabelled/1.png", (), "has a class 'unlabelled'; images without a label go to"),
        (None, ("test/dog/a.png", "test/cat/z.webp"), "there is no image in test/CLASS/; make test/ with a folder for"),
        ("test/a.avif", ("test/dog/a.png", "test/cat/z.webp"), "for testing (test/a.avif: only .png .jpg .jpeg .webp"),
        (
            None,
            (*LABELLED, "unlabelled/2.png", "unlabelled/10.png", "unlabelled/more/1.png"),
            "there is no image in train/CLASS/; make train/",
        ),
        (None, ("train/cat/x.bmp", "train/cat/deep/y.PNG", "test/cat/z.webp"), "images of 1 classes ['dog']"),
    ],
)
def test_folders_that_are_refused(tmp_path, extra, missing, expected):
    write_split_folder(tmp_path)
    if extra:
        (tmp_path / extra).parent.mkdir(exist_ok=True)
        (tmp_path / extra).touch()
    for name in missing:
        (tmp_path / name).unlink()
    with pytest.raises(ValueError) as error:
        folders.folder(str(tmp_path), image_size=8, channels=3)
    assert expected in message_of(error) and str(tmp_path) in message_of(error)


def test_a_class_with_few_labels_may_have_no_test_image(tmp_path, caplog):
    for name in ("cat/1.png", "dog/1.png", *(f"owl/{i}.png" for i in range(20))):
        write_image(tmp_path / name, noise(2, 2))
    dataset = folders.folder(str(tmp_path), image_size=2, channels=1)
    without = {dataset.class_names[i] for i in range(3)} - {dataset.class_names[i] for i in dataset.test.labels}
    found = ", ".join(map(repr, sorted(without)))
    assert "cat" in without
    assert [line.split(": ")[1] for line in caplog.messages] == [
        f"no test image of {found} by the 20 % rule; choose yourself with train/CLASS/ and test/CLASS/"
    ]


def test_plain_folders_that_are_refused(tmp_path):
    for name in ("cat/1.png", "dog/1.png"):
        write_image(tmp_path / name, noise(2, 2))
    with pytest.raises(ValueError, match="no test image of 'cat', 'dog' by the 20 % rule; choose yourself with train/"):
        folders.folder(str(tmp_path), image_size=2, channels=1)
    (tmp_path / "unlabeled").mkdir()
    (tmp_path / "unlabeled/1.png").touch()
    (tmp_path / "cat").rename(tmp_path / "zebra")
    (tmp_path / "dog").rename(tmp_path / "yak")
    with pytest.raises(ValueError, match="has a class 'unlabeled'; images without a label go to .*unlabelled"):
        folders.folder(str(tmp_path), image_size=2, channels=1)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        folders.folder(str(tmp_path / "nowhere"), image_size=2, channels=1)


# TensorFlow Datasets


@pytest.fixture
def prepare(tmp_path):
    """Writes a small set as ArrayRecord."""
    import tensorflow_datasets

    def write(
        image,
        label=None,
        supervised_keys=("picture", "kind"),
        encode=lambda pixels: pixels,
        version="1.0.0",
        kind=lambda seed: seed % 3,
    ):
        features = tensorflow_datasets.features

        class Small(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tensorflow_datasets.core.Version(version)

            def _info(self):
                kinds = {"picture": image, "kind": label or features.ClassLabel(names=["a", "b", "c"])}
                return tensorflow_datasets.core.DatasetInfo(
                    builder=self, features=features.FeaturesDict(kinds), supervised_keys=supervised_keys
                )

            def _split_generators(self, download):
                return {"train": self._generate_examples(0, 60), "test": self._generate_examples(60, 90)}

            def _generate_examples(self, first, last):
                for seed in range(first, last):
                    yield seed, {"picture": encode(noise(5, 4, 3, seed=seed)), "kind": kind(seed)}

        Small(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()

    return write


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    stream.seek(0)
    return stream


@pytest.mark.parametrize("stored", ["tensor", "png"])
def test_tfds(tmp_path, prepare, stored):
    from tensorflow_datasets import features

    if stored == "png":
        prepare(features.Image(shape=(5, 4, 3)), encode=png)
    else:
        prepare(features.Tensor(shape=(5, 4, 3), dtype=np.uint8))
    dataset = sources.tfds("small", data_dir=str(tmp_path), train_split="train", test_split="test[:20]", image_size=0)
    assert_dataset(dataset, (60, 5, 4, 3), (20, 5, 4, 3), 3)
    assert dataset.class_names == ("a", "b", "c")
    by_pixels = {noise(5, 4, 3, seed=seed).tobytes(): seed for seed in range(90)}
    seeds = [by_pixels[image.tobytes()] for image in dataset.train.inputs[:]]
    assert sorted(seeds) == list(range(60)), "a row was lost or doubled"
    assert dataset.train.labels.tolist() == [seed % 3 for seed in seeds]
    for row, image in zip((7, 0, 59), dataset.train.inputs[np.array([7, 0, 59])], strict=True):
        assert by_pixels[image.tobytes()] == seeds[row]
    copy = pickle.loads(pickle.dumps(dataset.test.inputs))  # as worker processes receive it
    np.testing.assert_array_equal(copy[3:5], dataset.test.inputs[3:5])
    assert "tensorflow" not in sys.modules


def test_tfds_of_any_size_is_made_square_as_a_folder_is(tmp_path, prepare):
    from tensorflow_datasets import features

    shapes = [(5, 4), (9, 30), (12, 12), (40, 7)]
    made = [Image.fromarray(noise(*shapes[seed % 4], 3, seed=seed)) for seed in range(90)]
    stored = iter(made)

    def encode(_):
        stream = io.BytesIO()
        image = next(stored)
        image.save(stream, "JPEG" if image.height == 9 else "PNG", quality=95)
        stream.seek(0)
        return stream

    prepare(features.Image(), encode=encode)
    dataset = sources.tfds("small", data_dir=str(tmp_path), train_split="train", test_split="test", image_size=6)
    assert_dataset(dataset, (60, 6, 6, 3), (30, 6, 6, 3), 3)
    expected = {}
    for seed, image in enumerate(made):
        if image.height == 9:
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=95)
            image = Image.open(stream)
        expected[decode.fitted(image, (6, 6, 3)).tobytes()] = seed
    seeds = [expected[image.tobytes()] for image in dataset.train.inputs[:]]
    assert sorted(seeds) == list(range(60)) and dataset.train.labels.tolist() == [seed % 3 for seed in seeds]
    copy = pickle.loads(pickle.dumps(dataset.test.inputs))  # as worker processes receive it
    np.testing.assert_array_equal(copy[np.array([3, 1])], dataset.test.inputs[np.array([3, 1])])


def test_tfds_of_several_labels(tmp_path, prepare):
    from tensorflow_datasets import features

    several = features.Sequence(features.ClassLabel(names=["a", "b", "c"]))
    kinds = [[], [2], [0, 1], [1, 2, 0]]
    prepare(features.Tensor(shape=(5, 4, 3), dtype=np.uint8), several, kind=lambda seed: kinds[seed % 4])
    dataset = sources.tfds("small", data_dir=str(tmp_path), train_split="train", test_split="test", image_size=0)
    assert dataset.task == "several" and dataset.class_names == ("a", "b", "c")
    by_pixels = {noise(5, 4, 3, seed=seed).tobytes(): seed for seed in range(90)}
    expected = [[c in kinds[by_pixels[image.tobytes()] % 4] for c in range(3)] for image in dataset.train.inputs[:]]
    np.testing.assert_array_equal(dataset.train.labels, np.int8(expected))
    assert dataset.train.labels.dtype == np.int8


@pytest.mark.parametrize("initialised", [False, True])
def test_tensorflow_takes_no_gpu_from_jax(tmp_path, prepare, monkeypatch, initialised):
    from tensorflow_datasets import features

    hidden = []

    class Config:
        def set_visible_devices(self, devices, kind):
            hidden.append((devices, kind))
            if initialised:
                raise RuntimeError("Visible devices cannot be modified after being initialized")

    prepare(features.Tensor(shape=(5, 4, 3), dtype=np.uint8))
    tensorflow = types.SimpleNamespace(config=Config())
    monkeypatch.setattr(sources, "sys", types.SimpleNamespace(modules={"tensorflow": tensorflow}))
    sources.tfds("small", data_dir=str(tmp_path), train_split="train", test_split="test", image_size=0)
    assert hidden == [([], "GPU")]


def test_tfds_asks_for_a_prepared_set_at_once(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        sources.tfds("mnist", data_dir=str(tmp_path), train_split="train", test_split="test", image_size=0)
    assert message_of(error) == (
        f"{tmp_path / 'mnist'}: no prepared data set there; prepare it with "
        'tfds.builder("mnist", data_dir=..., file_format="array_record").download_and_prepare()'
    )


def test_tfds_sets_that_are_refused(tmp_path, prepare):
    from tensorflow_datasets import features

    def refusal(dataset="small", train_split="train"):
        with pytest.raises(ValueError) as error:
            sources.tfds(dataset, data_dir=str(tmp_path), train_split=train_split, test_split="test", image_size=0)
        return message_of(error)

    fixed = features.Tensor(shape=(5, 4, 3), dtype=np.uint8)
    prepare(fixed)
    assert "Unknown split 'validation'. Should be one of ['train', 'test']" in refusal(train_split="validation")
    info = tmp_path / "small/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "parquet"))
    assert 'stored as parquet; must be prepared with file_format="array_record"' in refusal()
    prepare(features.Image(shape=(None, None, 3)), encode=png, version="2.0.0")
    assert "more than one prepared data set; allowed: small/1.0.0, small/2.0.0" in refusal()
    assert "'picture' is Image(shape=(None, None, 3), dtype=uint8); must be uint8" in refusal("small/2.0.0")
    prepare(fixed, supervised_keys=None, version="3.0.0")
    assert "supervised keys are None; must be a pair (image, label)" in refusal("small/3.0.0")
    prepare(fixed, label=features.Tensor(shape=(), dtype=np.int64), version="4.0.0")
    assert "feature 'kind' is Tensor(shape=(), dtype=int64); must be a ClassLabel" in refusal("small/4.0.0")
