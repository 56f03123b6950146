"""Damaged, foreign and hostile files, by seeded cases (`fuzzing.py`): none may crash a reader or be taken as whole.

A case ends in one line that names the file, in its being left out where that is safe and said, or in its acceptance,
which must be right by an independent look at the bytes. Formats differ in what they let a reader notice: PNG, zip, gzip
and our checkpoints and weights have checksums; IDX, CIFAR-10, .npy, JSON and JPEG have structure and ranges only, so a
changed pixel of theirs is another pixel. `pytest -s` prints the counts.
"""

import ast
import csv
import dataclasses
import functools
import gzip
import io
import json
import math
import os
import re
import struct
import sys
import zipfile
import zlib
from typing import Any

import jax
import numpy as np
import pyarrow
import pytest
from fuzzing import Reader, edit_json, fuzz, limits, listen, nest, put, replace, same
from PIL import Image
from pyarrow import parquet
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx import scores
from labelfx.config import ConfigError
from labelfx.data import Split, sources
from labelfx.data.batches import label_view
from labelfx.data.decode import decode
from labelfx.data.files import warn_once
from labelfx.data.sources import images as image_sources
from labelfx.data.sources import text as text_sources
from labelfx.features import _of_folder
from labelfx.finished import weights
from labelfx.loop import checkpoint, metrics, run
from labelfx.loop.checkpoint import CheckpointError
from labelfx.loop.said import identity
from labelfx.mining.files import _embeddings, _positives
from labelfx.reports.tables import read

# TensorStore reads a broken checkpoint in many futures; the errors of those nobody waits for surface as warnings.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 28, 28), np.uint8)
U32 = [struct.pack(">I", number) for number in (0, 1, 5, 7, 27, 29, 30_000, 2**31 - 1, 2**31, 2**32 - 1)]


IMAGES = ("png", "jpeg", "gif", "tiff")


def saved(write, *arguments, **keywords) -> bytes:
    stream = io.BytesIO()
    write(stream, *arguments, **keywords)
    return stream.getvalue()


# Images


def picture(number: int, kind: str) -> bytes:
    """Smooth, so that a JPEG is small, and with what other programs write beside the pixels."""
    y, x = np.mgrid[:24, :20]
    image = Image.fromarray(np.stack([(x * 9 + 30 * number) % 256, y * 9, x + y + number], -1).astype(np.uint8))
    if kind == "gif":  # with a second frame
        return saved(image.save, format=kind, save_all=True, append_images=[image.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    return saved(image.save, format=kind, exif=exif, dpi=(72, 72))


def chunks(content: bytes) -> list[tuple[bytes, bytes, bytes]] | None:
    """Kind, content and checksum of each chunk of a PNG, to IEND; None where it has no such structure."""
    found, at = [], 8
    while content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= at + 12:
        (length,) = struct.unpack(">I", content[at : at + 4])
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length], content[at + 8 + length :][:4]))
        at += 12 + length
        if found[-1][0] == b"IEND":
            return found
    return None


def is_png(content: bytes) -> bool:
    """Checksums, and as many bytes of pixels as the header says; of 8 bits, grey or RGB, not interlaced."""
    parts = chunks(content)
    if not parts or parts[0][0] != b"IHDR" or any(struct.pack(">I", zlib.crc32(k + c)) != s for k, c, s in parts):
        return False
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", parts[0][1])
    inflated = zlib.decompress(b"".join(content for kind, content, _ in parts if kind == b"IDAT"))
    return depth == 8 and not interlaced and len(inflated) == height * (1 + width * {0: 1, 2: 3}[colour])


def edit_header(rng, content):
    """A field of IHDR, under a right checksum."""
    at, values = [(16, U32), (20, U32), (24, [b"\1", b"\x10"]), (25, [b"\0", b"\3", b"\6", b"\7"]), (28, [b"\1"])][
        rng.integers(5)
    ]
    content = put(at, *values)(rng, content)
    return content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]


def drop_chunk(rng, content):
    parts = chunks(content)
    del parts[rng.integers(len(parts))]
    return content[:8] + b"".join(struct.pack(">I", len(c)) + kind + c + check for kind, c, check in parts)


def is_jpeg(content: bytes) -> bool:
    """Markers and the lengths of their segments, from the first to the last; there is no checksum."""
    at, seen = 2, set()
    if content[:2] != b"\xff\xd8":
        return False
    while content[at : at + 1] == b"\xff" and len(content) >= at + 4:
        marker, (length,) = content[at + 1], struct.unpack(">H", content[at + 2 : at + 4])
        seen.add(marker)
        at += 2 + length
        if marker == 0xDA:  # the pixels, in which 0xff is followed by 0 or a restart
            end = re.search(rb"\xff[^\x00\xd0-\xd7\xff]", content[at:])
            if end is None:
                return False
            at += end.start()
            if content[at + 1] == 0xD9:
                return {0xC4, 0xDB} <= seen and bool({0xC0, 0xC1, 0xC2} & seen)
    return False


def image_folder(kind: str, part: str, read, left_out=lambda *_: False) -> Reader:
    names = [f"{part}/{number}.{kind}" for number in range(3)]
    classes = {f"{split}/{c}/0.png": picture(7, "png") for split in ("train", "test") for c in "ab"}
    valid = {"png": is_png, "jpeg": is_jpeg}.get(kind, lambda content: True)  # of others damage makes another picture
    size = [
        put(at + move, *(value[2:] for value in U32))
        for at in [picture(0, "jpeg").find(b"\xff\xc0")]
        for move in (5, 7)
    ]
    edits = {
        "png": (edit_header, edit_header, drop_chunk, replace(b"IDAT", b"IDAX", b"IEND"), replace(b"IEND", b"")),
        "jpeg": (*size, replace(b"\xff\xd9", b"", b"\0\0"), replace(b"\xff\xc4", b"\xff\xc5", b"\xff\xd9"),
                 replace(b"\xff\xdb", b"\xff\xda"), replace(b"\xff\xda", b"\xff\xd9", b"\xff\xfe")),
        "gif": (put(6, *(value[2:] for value in U32)), replace(b",", b";", b"!"), replace(b"\0;", b"")),
        "tiff": (put(4, *U32), replace(b"\6\1", b"\2\1", b"\0\1", b"\x17\1")),
    }  # fmt: skip
    files = classes | {name: picture(number, kind) for number, name in enumerate(names)}
    return Reader(
        files, read, lambda name, content, found: valid(content), left_out, {kind: edits[kind]}, damaged=tuple(names)
    )


def all_images(folder):
    warn_once.cache_clear()  # each case is a process of its own
    dataset = sources.folder(str(folder), image_size=8, channels=3)
    return dataset.train.inputs[:]


def is_next_in_its_place(name, images, whole) -> bool:
    """Rows 2 to 4 are the unlabelled ones."""
    number = int(name[len("unlabelled/")])
    expected = whole.copy()
    expected[2 + number] = whole[2 + (number + 1) % 3]
    return same(images, expected)


def is_without(name, features, whole) -> bool:
    return same(features, {key: value for key, value in whole.items() if f"f/{key}" != name})


class Means:
    """In place of an encoder."""

    shape = (8, 8, 3)

    def __call__(self, images):
        return images.astype(np.float32).mean((1, 2))


def all_features(folder):
    names, found = _of_folder(Means(), folder / "f")
    return dict(zip(names.tolist(), found, strict=True))


# Arrays


def parse_npy(content: bytes) -> np.ndarray | None:
    """An array whose header and length are right, else None."""
    try:
        width, form = {b"\1\0": (2, "<H"), b"\2\0": (4, "<I"), b"\3\0": (4, "<I")}[content[6:8]]
        (length,) = struct.unpack(form, content[8 : 8 + width])
        header = ast.literal_eval(content[8 + width : 8 + width + length].decode("latin1").strip())
        dtype, shape = np.dtype(header.pop("descr")), header.pop("shape")
        order = {False: "C", True: "F"}[header.pop("fortran_order")]
        array = np.frombuffer(content[8 + width + length :], dtype)
        right = content[:6] == b"\x93NUMPY" and not header and dtype.kind != "O" and all(type(n) is int for n in shape)
        return array.reshape(shape, order=order) if right and min(shape, default=0) >= 0 else None
    except (ValueError, TypeError, KeyError, SyntaxError, struct.error, AttributeError, OverflowError):
        return None


def edit_npy(rng, content):
    """A shape, dtype or order that the header does not have, in as many bytes."""
    length = struct.unpack("<H", content[8:10])[0]
    header = ast.literal_eval(content[10 : 10 + length].decode())
    sizes = [0, 1, -1, 2, 5, 10**6, 2**40, 2**63, 10**30]
    shape = list(header["shape"])
    kind = rng.integers(4)
    if kind == 0 and shape:
        shape[rng.integers(len(shape))] = sizes[rng.integers(len(sizes))]
    elif kind == 1:
        shape = [[], [*shape, 2**40], [math.prod(shape)], [math.prod(shape) // 2, 2]][rng.integers(4)]
    elif kind == 2:
        header["descr"] = ["|O", "<f8", "<u2", "|u1", "|i1", "|S1", "<c8", "|V1", ">i8", "<m8[s]", [("a", "|u1")]][
            rng.integers(11)
        ]
    else:
        header["fortran_order"] = True
    text = repr(header | {"shape": tuple(shape)}).encode().ljust(max(length, 118) - 1) + b"\n"
    return content[:8] + struct.pack("<H", len(text)) + text + content[10 + length :]


ARRAYS = {
    "train_images": PIXELS[:5, :4, :6], "train_labels": np.array([2, -1, 0, 1, -1]),
    "test_images": PIXELS[5:, :4, :6], "test_labels": np.array([1], np.uint8), "class_names": np.array(["a", "b", "c"]),
}  # fmt: skip


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def edit_npz(rng, content):
    """One member changed, under right checksums; or bytes of the archive's own records."""
    found = members(content)
    name = list(found)[rng.integers(len(found))]
    kind = rng.integers(6)
    if kind == 0:
        found[["../" + name, "/tmp/" + name, name.upper(), name[:-4]][rng.integers(4)]] = found.pop(name)
    elif kind == 1:
        found[name] = saved(np.save, np.array([{}, name], object), allow_pickle=True)
    elif kind == 2:
        found[name] = [b"", b"\x80\x04N.", b"text", found[name][:-1], found[name] + b"\0"][rng.integers(5)]
    elif kind == 3:
        labels = [
            np.array([1, 3, 0, 0, 0]),
            np.array([-2] * 5),
            np.array([2**40]),
            np.array([[0]]),
            np.array(0.5),
            np.array(3),
        ]
        found[name] = saved(np.save, labels[rng.integers(6)])
    else:
        found[name] = edit_npy(rng, found[name])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED][rng.integers(2)]) as archive:
        for each, data in found.items():
            archive.writestr(each, data)
    return stream.getvalue()


def arrays_of(content: bytes) -> dict[str, Any]:
    """The members of an .npz, those that are no whole array as None; {} where it is no archive."""
    try:
        return {key.removesuffix(".npy"): parse_npy(data) for key, data in members(content).items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        return {}


def is_npz(name, content, found) -> bool:
    inside = arrays_of(content)
    arrays = [inside.get(key) for key in list(ARRAYS)[:4]]
    if any(array is None for array in arrays):
        return False
    images, kinds = [arrays[0], arrays[2]], {(x.dtype.kind, x.ndim) for x in (arrays[1], arrays[3])}
    if kinds <= {("i", 1), ("u", 1)}:
        labels = [arrays[1].astype(np.int32), arrays[3].astype(np.int32)]
        count, lowest = max(1 + int(np.max(x, initial=0)) for x in (arrays[1], arrays[3])), -1
    else:
        labels, count, lowest = [arrays[1], arrays[3]], 1, -1
        if {str(x.dtype) for x in labels} not in ({"int8"}, {"float32"}) or labels[0].shape[1:] != labels[1].shape[1:]:
            return False
        count = labels[0].shape[1] if labels[0].ndim == 2 else 0
    names = inside.get("class_names", np.arange(count).astype(str))
    if names is None or names.dtype.kind != "U" or names.ndim != 1:
        return False
    for each, least in ((arrays[1], lowest), (arrays[3], 0)):
        if each.dtype.kind == "f":
            if np.isinf(each).any():
                return False
        elif not (least <= each.min() and each.max() < (2 if each.ndim == 2 else len(names))):
            return False
    rows = []
    for x in images:
        if x.dtype == np.uint8 and x.ndim in (3, 4):
            rows.append(x if x.ndim == 4 else x[..., None])
        elif (x.dtype.kind == "f" or x.dtype == np.int32) and x.ndim == 2 and np.isfinite(x).all():
            rows.append(x.astype(np.float32 if x.dtype.kind == "f" else np.int32))
        else:
            return False
    expected = Split(rows[0], labels[0]), Split(rows[1], labels[1]), tuple(names.tolist())
    return same(jax.tree.leaves(expected), jax.tree.leaves(tuple(found)[:3]))


LABELLED = {
    "X": RNG.standard_normal((9, 3)), "Y": np.eye(3, dtype=np.uint8)[[0, 1, 2, 1, 0, 2, 2, 0, 1]],
    "label_names": np.array(["a", "b", "c"]),
}  # fmt: skip
BAGS = {"X": RNG.integers(-9, 9, (8, 3)), "bag_id": np.arange(8) // 2, "bag_label": np.array([0, 1, 1, 0], np.uint8)}
GRAPH = {
    "feat_data": np.ones(4, np.float32), "feat_indices": np.array([0, 1, 2, 0]), "feat_shape": np.array([5, 3]),
    "feat_indptr": np.array([0, 2, 3, 3, 4, 4]), "edges": np.array([[0, 1], [1, 4]]),
    "labels": np.array([0, 1, 6, 2, -1]),
    "train_idx": np.array([2]), "val_idx": np.array([1]), "test_idx": np.array([3]),
}  # fmt: skip


def rows_in_order(*parts: np.ndarray) -> np.ndarray:
    rows = np.concatenate([part.reshape(len(part), -1).astype(np.float32) for part in parts])
    return rows[np.lexsort(rows.T)]


def is_labelled(name, content, found) -> bool:
    inside = arrays_of(content)
    x, y, names = (inside.get(key) for key in LABELLED)
    if any(each is None for each in (x, y, names)) or x.ndim != 2 or y.ndim != 2 or names.ndim != 1:
        return False
    right = x.dtype.kind in "fiu" and y.dtype.kind in "biu" and names.dtype.kind == "U" and np.isfinite(x).all()
    right &= np.isin(y, (0, 1)).all() and len(x) == len(y) and y.shape[1] == len(names) == len(found.class_names)
    splits = (found.train, found.test)
    return right and same(rows_in_order(*(split.inputs for split in splits)), rows_in_order(x))


def is_bags(name, content, found) -> bool:
    inside = arrays_of(content)
    x, bag, positive = (inside.get(key) for key in BAGS)
    if any(each is None for each in (x, bag, positive)) or x.ndim != 2 or bag.ndim != 1 or positive.ndim != 1:
        return False
    right = x.dtype.kind in "fiu" and bag.dtype.kind in "iu" and positive.dtype.kind in "biu" and np.isfinite(x).all()
    right &= set(bag.tolist()) == set(range(len(positive))) and np.isin(positive, (0, 1)).all() and len(x) == len(bag)
    splits = (found.train, found.test)
    targets = np.concatenate([split.columns["bag_target"][:, 1] for split in splits])
    bags = np.concatenate([split.columns["bag"] for split in splits])
    right &= same(rows_in_order(*(split.inputs for split in splits)), rows_in_order(x))
    return right and bool((positive[bags] == targets).all())


def is_graph(name, content, found) -> bool:
    inside = {key: inside for key, inside in arrays_of(content).items() if key in GRAPH}
    if inside.keys() != GRAPH.keys() or any(each is None or each.dtype.kind not in "iuf" for each in inside.values()):
        return False
    labels, edges, graph = inside["labels"], inside["edges"], found.side["graph"]
    ids = np.concatenate([split.inputs[:, 0] for split in (found.train, found.test)])
    right = sorted(ids) == list(range(len(labels))) and found.test.inputs[:, 0].tolist() == inside["test_idx"].tolist()
    right &= same(np.concatenate([found.train.labels, found.test.labels]), labels[ids].astype(np.int32))
    pairs = {(a, b) for a, b in edges.tolist() if a != b}
    right &= {tuple(edge) for edge in graph.edges.tolist()} == pairs | {(b, a) for a, b in pairs}
    starts = inside["feat_indptr"]
    words = [set(inside["feat_indices"][a:b].tolist()) for a, b in zip(starts, starts[1:], strict=False)]
    return right and [set(np.flatnonzero(row).tolist()) for row in graph.features] == words


INDEX, POSITIVES = RNG.standard_normal((20, 4), np.float32), np.array([[3, -1], [0, 19], [7, 7]])


def read_npy(folder):
    return np.asarray(_embeddings("index", folder / "index.npy")), _positives(folder / "positives.npy", 3, 20)


def is_npy(name, content, found) -> bool:
    array = parse_npy(content)
    if array is None or not array.size:
        return False
    if name == "index.npy":
        return array.dtype.kind == "f" and array.ndim == 2 and np.isfinite(array).all() and same(found[0], array)
    in_range = (array < 20).all() and (array >= -1).all() and (array.reshape(3, -1)[:, 0] >= 0).all()
    return array.dtype.kind in "iu" and in_range and same(found[1], array.reshape(3, -1).astype(np.int32))


def idx_files(gzipped: bool) -> dict[str, bytes]:
    parts = {"train": (PIXELS, [0, 9, 3, 3, 1, 2]), "t10k": (PIXELS[:2], [9, 0])}
    found = {}
    for split, (images, labels) in parts.items():
        found[f"{split}-images-idx3-ubyte"] = struct.pack(">I3I", 0x803, *images.shape) + images.tobytes()
        found[f"{split}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, len(labels)) + bytes(labels)
    return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in found.items()} if gzipped else found


def is_idx(name, content, found) -> bool:
    if name.endswith(".gz"):
        inflate = zlib.decompressobj(31)
        try:
            content = inflate.decompress(content)
        except zlib.error:
            return False
        if not inflate.eof or inflate.unused_data.strip(b"\0"):
            return False
    part, array = found.train if "train" in name else found.test, np.frombuffer(content, np.uint8)
    count = len(part.labels)
    if "labels" in name:
        right = content[:8] == struct.pack(">II", 0x801, count) and array[8:].max() < 10
        return right and same(part.labels, array[8:].astype(np.int32))
    return content[:16] == struct.pack(">I3I", 0x803, count, 28, 28) and same(part.inputs.reshape(-1), array[16:])


def bomb(rng, content):
    """A few bytes that say they are 4 GB."""
    return gzip.compress(struct.pack(">I3I", 0x803, 5_000_000, 28, 28) + bytes(10**6), mtime=0)


def edit_gzip(rng, content):
    edits = [*([put(at, *U32) for at in (0, 4, 8, 12)]), put(3, b"\0", b"\7", b"\x0e")]
    return gzip.compress(edits[rng.integers(len(edits))](rng, gzip.decompress(content)), mtime=0)


CIFAR = np.zeros((10000, 3073), np.uint8)
CIFAR[:, 0] = np.arange(10000) % 10
CIFAR[::1000, 1:] = RNG.integers(0, 256, (10, 3072))


def read_cifar(folder):
    split = Split(*image_sources._cifar10_binary(folder / "data_batch_1.bin"))
    return image_sources._dataset(str(folder), split, split, image_sources.CIFAR10)


def is_cifar(name, content, found) -> bool:
    rows = np.frombuffer(content, np.uint8)
    if rows.size != CIFAR.size:
        return False
    rows = rows.reshape(CIFAR.shape)
    planes = found.train.inputs.transpose(0, 3, 1, 2).reshape(10000, -1)
    return rows[:, 0].max() < 10 and (planes == rows[:, 1:]).all() and (found.train.labels == rows[:, 0]).all()


# Weights and checkpoints

STATE = {
    "params": {"kernel": RNG.standard_normal((8, 4), np.float32), "bias": np.zeros(4, np.float32)},
    "count": np.int32(7),
}
TABLE = {"include": np.array([True, False, True])}
WEIGHTS = {"params": {"backbone": STATE["params"], "head": {"Dense_0": {"bias": np.ones(3, np.float32)}}}}


def edit_safetensors(rng, content):
    """The header, with its length made right again."""
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length]
    edits = [
        replace(b'"F32"', b'"I32"', b'"F16"', b'"BF16"', b'"F64"', b'"F8_E4M3"', b'"X"'), edit_json, edit_json,
        replace(b'"params/', b'"../params/', b'"', b'"params', b'"params/backbone/bias/'),
        replace(b"[", b"[0,", b"[-1,", b"[1,", b"[9999999999999999999,"), nest,
    ]  # fmt: skip
    header = edits[rng.integers(len(edits))](rng, header)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


HUGE = put(0, *(struct.pack("<Q", n) for n in (0, 1, 7, 10**6, 2**40, 2**63, 2**64 - 1)))


def read_checkpoint(folder):
    shapes = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)]
    with checkpoint.Checkpoints(folder, keep=3) as kept:
        found = kept.restore(lambda meta: shapes[meta["phase"]])
    return found._replace(meta={key: found.meta[key] for key in ("phase", "seconds")})


def is_step_before(name, found, whole) -> bool:
    state, table, phase = found.state, found.table, found.meta["phase"]
    return found.step == 1 and phase == 0 and same(jax.tree.map(np.asarray, state), STATE) and same(table, TABLE)


# Files of a run

CONFIG = json.loads(
    json.dumps(
        configs.plain(configs.check(tiny("supervised", model={"name": "mlp", "hidden": (4,), "dtype": "float32"})))
    )
)
LABELS = {"rows": [0, 3, 5], **identity(label_view(sources.digits().train, np.array([0, 3, 5])))}
SCORES = {f"{kind}_{what}": 0.25 for kind in ("positive", "negative") for what in ("mean", "std")}
SCORES |= {"positive_counts": [0, 3], "negative_counts": [2, 1], "embeddings": "backbone"}
RESULTS = {
    "name": "supervised",
    "metrics": {
        "head": {"accuracy": 0.0625, "split": "test", "n": 382}, "score_distribution": SCORES, "rankme": {"value": 3.5},
    },
    "config_hash": "c029123a880a", "commit": None, "seeds": {"seed": 0, "label_seed": 0, "data_seed": 0},
    "labels": {"n": 20, "rows_hash": "4ec9", "said_hash": "4ed0"},
    "data": {"shape": [8, 8, 1], "dtype": "uint8", "class_names": list("0123456789"), "task": "class", "outputs": 10},
    "training": {"steps": 6, "seconds": 6.25, "images_per_second": 55.5, "compilations": 1},
    "device": {"kind": "cpu", "platform": "cpu", "count": 1}, "finished": "2026-11-21T18:33:25+00:00",
}  # fmt: skip
LOGGED = [{"step": step, "loss": 2.5 / step, "images_per_second": 100.5} for step in (2, 4, 6, 8)]
OPTIONAL = {f.name for f in dataclasses.fields(configs.Run) if f.default is not dataclasses.MISSING} | {"placement"}
MODEL = {
    "params": {
        "backbone": {"Dense_0": {"bias": np.ones(4, np.float32), "kernel": np.ones((64, 4), np.float32)}},
        "head": {"Dense_0": {"bias": np.ones(10, np.float32), "kernel": np.ones((4, 10), np.float32)}},
    }
}


def at_least(least: float, most: float = 2**31 - 1, kind: type = int):
    return lambda value: type(value) in (int, kind) and least <= value <= most


LIMITS = {
    **dict.fromkeys("steps fsdp steps_per_dispatch log_every save_every keep k accumulate".split(), at_least(1)),
    **dict.fromkeys(("b1", "b2", "label_smoothing"), at_least(0, 1, float)),
    **dict.fromkeys(("positive_mean", "negative_mean", "rankme"), at_least(-1e300, 1e300, float)),
    "learning_rate": at_least(5e-324, 1e309, float), "accuracy": at_least(0, 1, float),
    "hidden": lambda value: type(value) is list and all(map(at_least(1), value)),
    "clip_norm": lambda value: value is None or at_least(5e-324, 1e309, float)(value),
    "dtype": lambda value: value in ("float32", "bfloat16", "uint8"),
    "placement": lambda value: value in ("host", "device"),
    **dict.fromkeys(("backbone", "teacher"), lambda value: value in ("", [])),
    "commit": lambda value: value is None or type(value) is str,
}  # fmt: skip


def like(found: Any, whole: Any, key: str = "") -> bool:
    """The same keys, but for optional ones, and the same types; numbers >= 0 or within their limits."""
    if isinstance(whole, dict):
        if not isinstance(found, dict) or any(k not in found for k in whole.keys() - OPTIONAL) or found.keys() - whole:
            return False
        return all(value == whole[k] if k == "name" and key else like(value, whole[k], k) for k, value in found.items())
    if key in LIMITS:
        return LIMITS[key](found)
    if isinstance(whole, list):
        return isinstance(found, list) and all(like(x, whole[0]) for x in found)
    return at_least(0, 1e300, type(whole))(found) if type(whole) in (int, float) else type(found) is type(whole)


def parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def dumped(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def read_table(folder):
    print("\n".join(read([folder])[1]), file=sys.stderr)
    return re.sub("(?m)^warning.*", "", labelfx.table([folder])).strip()


def read_report(folder):
    text = labelfx.report([folder], folder / "r.html").with_suffix(".md").read_text()
    print("\n".join(re.findall("(?m)^Left out: .*(?:as it was written|not of a log).*", text)), file=sys.stderr)
    return text.count("supervised")


def read_encoder(folder):
    encoder = labelfx.load(folder)
    encoder(np.zeros((1, *encoder.shape), encoder.dtype))
    return encoder.variables, encoder.head, encoder.shape, encoder.dtype, encoder.class_names


def read_labels(folder):
    return run.load_data(configs.check(CONFIG), folder)[1].rows


def is_log(name: str, content: bytes, found: Any) -> bool:
    """Every line of it, and each a step and numbers."""
    *lines, last = content.split(b"\n")
    expected = [parsed(line) for line in lines + [last] * (parsed(last) is not None)]
    whole = all(isinstance(line, dict) and at_least(0)(line.get("step")) for line in expected)
    return whole and found == expected and b'{"step": '.startswith(last[:9])


def is_rest(name: str, found: Any, whole: Any) -> bool:
    return all(isinstance(line, dict) and type(line["step"]) is int for line in found)


def is_in_table(results: Any) -> bool:
    """What the table takes of them; evals may have any name."""
    known = {key: results[key] for key in SHOWN if key in results} if isinstance(results, dict) else None
    parts = known and known.get("metrics")
    if not isinstance(parts, dict) or not like(known | {"metrics": SHOWN["metrics"]}, SHOWN) or not known["name"]:
        return False
    limits = {"accuracy": (0, 1), "value": (-1e300, 1e300)}
    if not all(isinstance(part, dict) for part in parts.values()):
        return False
    return all(at_least(*limits[k], float)(v) for part in parts.values() for k, v in part.items() if k in limits)


def is_shown(name: str, content: bytes) -> bool:
    """Beside results any object is shown as the configuration; of a log, what is left."""
    if name == "results.json":
        return is_in_table(parsed(content))
    return name == "metrics.jsonl" or isinstance(parsed(content), dict)


# Texts

STS = "".join(f"{n % 5}.{n}\ta man {n} runs\ta woman {n} sleeps\n" for n in range(8)) + "\tno score\there\n"
SICK = "\n".join(
    "\t".join(row)
    for row in [text_sources.SICK_HEADER, *([str(n), "a man", f"{n} dogs", "4.5", "x"] for n in range(4))]
)
DOCUMENT = ".I {}\n.T\na title {}\n.A\nsomebody\n.B\nsomewhere\n.W\na title {}\nand wings of {}\n"
TEXT = {"vocab_size": 300, "max_length": 6}


def is_number(text: str, least: float, most: float) -> bool:
    try:
        return least <= float(text) <= most
    except ValueError:
        return False


def rows_of(content: bytes) -> list[list[str]]:
    return [line.split("\t") for line in content.decode(errors="replace").split("\n") if line]


def is_sts(name, content, found) -> bool:
    return all(len(row) == 3 and (not row[0] or is_number(row[0], 0, 5)) for row in rows_of(content))


def is_sick(name, content, found) -> bool:
    return all(len(row) == 5 and is_number(row[3], 1, 5) for row in rows_of(content)[1:])


def is_cranfield(name, content, found) -> bool:
    if name == "cranqrel":
        rows = [line.split() for line in content.decode("latin1").splitlines()]
        within = (range(1, 3), range(1, 5), (-1, 1, 2, 3, 4))
        return all(len(row) == 3 and all(int(x) in each for x, each in zip(row, within, strict=True)) for row in rows)
    return len(re.findall(rb"(?m)^\.I \d+ *\r?$", content)) in (2, 3, 4, 5)


CSV = "a,b,kind,note\n" + "".join(f'{n},{n / 4},{"xy"[n % 2]},"said ""{n}"", so"\n' for n in range(6)) + "7,8,,\n"
JSONL = "".join(json.dumps({"a": n, "b": n / 4, "kind": "xy"[n % 2]}) + "\n" for n in range(6)) + '{"a": 7, "b": 8}\n'
OWN = {"inputs": ("a", "b"), "labels": ("kind",), "task": "class", "test": "30%", "test_seed": 0}
OWN |= {"vocab_size": 0, "max_length": 0}
BANKING = "text,category\n" + "".join(f'"a {n}, ""b"" c",{"xy"[n % 2]}\n' for n in range(5))
CLINC = {part: [[f"say {n}", "xyz"[n % 3]] for n in range(6)] for part in ("train", "test")}
EMOTIONS = "".join(f"a comment {n}\t{n % 3},{(n + 1) % 3}\tid{n}\n" for n in range(5))
VOTED = {str(n): {"label": n % 2, "weak_labels": [n % 2, -1], "data": {"text": f"text {n}"}} for n in range(4)}


def is_own(rows: list[dict[str, Any]], found: Any) -> bool:
    """The rows of a table are those that were read."""
    given = [(float(row["a"]), float(row["b"])) for row in rows]
    kinds = [str(row.get("kind") if row.get("kind") is not None else "").strip() for row in rows]
    read = np.concatenate([split.inputs for split in (found.train, found.test)])
    labels = np.concatenate([split.labels for split in (found.train, found.test)])
    said = [
        (*row, found.class_names[label] if label >= 0 else "") for row, label in zip(read.tolist(), labels, strict=True)
    ]
    return sorted(said) == sorted((*np.float32(row).tolist(), kind) for row, kind in zip(given, kinds, strict=True))


def as_parquet() -> bytes:
    rows = [json.loads(line) for line in JSONL.splitlines()]
    return saved(lambda stream: parquet.write_table(pyarrow.Table.from_pylist(rows), stream, write_page_checksum=True))


def is_csv(name, content, found) -> bool:
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    header, *rows = (row for row in csv.reader(io.StringIO(text, newline="")) if row)
    return all(len(row) == len(header) for row in rows) and is_own(
        [dict(zip(header, row, strict=True)) for row in rows], found
    )


def is_jsonl(name, content, found) -> bool:
    return is_own([json.loads(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()], found)


def is_banking77(name, content, found) -> bool:
    if name == "categories.json":
        names = parsed(content)
        return isinstance(names, list) and len({*names}) == len(names) and {"x", "y"} <= {*names}
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    return all(len(row) == 2 and row[1] in "xy" for row in rows[1:])


def is_clinc150(name, content, found) -> bool:
    parts = parsed(content)
    pairs = [pair for part in ("train", "test") for pair in parts[part]]
    return all(isinstance(pair, list) and len(pair) == 2 and all(type(x) is str for x in pair) for pair in pairs)


def is_goemotions(name, content, found) -> bool:
    if name == "labels.txt":
        names = content.decode().split()
        return len({*names}) == len(names) > 2
    rows = rows_of(content)
    return all(
        len(row) == 3
        and all(number.strip() in ("0", "1", "2") or int(number) in range(3) for number in row[1].split(","))
        for row in rows
    )


def is_wrench(name, content, found) -> bool:
    value = parsed(content)
    if name.endswith("label.json"):
        return isinstance(value, dict) and list(value) == [str(n) for n in range(len(value))] and len(value) > 1
    return all(
        row["label"] in (0, 1)
        and all(vote in (-1, 0, 1) for vote in row["weak_labels"])
        and type(row["data"]["text"]) is str
        for row in value.values()
    )


RUN = {"config.json": dumped(CONFIG), "results.json": dumped(RESULTS)}
SHOWN = {key: RESULTS[key] for key in ("name", "metrics", "config_hash", "commit", "seeds", "labels")}  # in a table
SHOWN["metrics"] = {"head": {"accuracy": 0.0625}, "rankme": {"value": 3.5}}
DATA, SCORED = {"data": RESULTS["data"]}, {"metrics": {"score_distribution": SCORES}}
WRITTEN = {"a/results.json": dumped(SHOWN), "b/results.json": dumped(SHOWN | {"name": "other"})}
LINES = "".join(json.dumps(line) + "\n" for line in LOGGED).encode()
TREES = {"json": (edit_json, edit_json, edit_json, nest)}
TEXTS = (replace(b"\t", b"", b"\t\t"), replace(b"4.", b"-", b"7.", b"nan", b"inf", b"1e9", b"0x"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Two checkpoints of one state, and weights of two networks, as bytes."""
    folder = tmp_path_factory.mktemp("kept")
    with checkpoint.Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, jax.tree.map(jax.numpy.asarray, STATE), TABLE, {"phase": 0, "seconds": 1.5})
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for name, variables in (("some", WEIGHTS), ("0", MODEL)):
        weights.save(folder / f"{name}.safetensors", variables)
    return files, *((folder / f"{name}.safetensors").read_bytes() for name in ("some", "0"))


def readers(checkpoints: dict[str, bytes], some: bytes, model: bytes) -> dict[str, Reader]:
    found = {}
    for kind in IMAGES:
        part = functools.partial(image_folder, kind)
        found[f"{kind}, labelled"] = part("train/a", all_images)
        found[f"{kind}, unlabelled"] = part("unlabelled", all_images, is_next_in_its_place)
        found[f"{kind}, features"] = part("f", all_features, is_without)
    tensors = {"safetensors": (edit_safetensors, HUGE)}
    step_2 = tuple(name for name in checkpoints if name.startswith("checkpoints/2/"))
    sts = {f"{year}/a.test.tsv": STS.encode() for year in text_sources.YEARS} | {"2012/a.train.tsv": STS.encode()}
    both = ("train", "test")
    sick = {f"SICK_{part}.txt": SICK.encode() for part in ("train", "trial", "test_annotated")}
    cran = {
        "cran.all.1400": "".join(DOCUMENT.format(n, n, n, n) for n in range(1, 5)).encode(),
        "cran.qry": b"".join(b".I 00%d\n.W\nwhat of wings %d ?\n" % (n, n) for n in (1, 2)),
        "cranqrel": b"1 2 3\n1 3 -1\n2 4 1\n2 1 2\n",
    }
    idx_edits = {"ubyte": tuple(put(at, *U32) for at in (0, 4, 8, 12)), "gz": (edit_gzip, edit_gzip, bomb)}
    npys = {"index.npy": saved(np.save, INDEX), "positives.npy": saved(np.save, POSITIVES)}
    encoder = RUN | {"results.json": dumped(DATA), "weights/0.safetensors": model}
    runs = {f"{run}/{name}": data for run in "ab" for name, data in (RUN | {"metrics.jsonl": LINES}).items()}
    refused = (ConfigError, OSError)  # where no caller makes a ConfigError of another ValueError
    nothing: Any = lambda *_: False  # noqa: E731  with a checksum of all of it
    return found | {
        "npz": Reader(
            {"own.npz": saved(np.savez, **ARRAYS)}, lambda f: sources.npz(str(f / "own.npz")), is_npz,
            edits={"npz": (edit_npz,)},
        ),
        "npy": Reader(npys, read_npy, is_npy, edits={"npy": (edit_npy,)}, refusals=refused),
        "idx": Reader(idx_files(False), lambda f: sources.mnist(data_dir=str(f)), is_idx, edits=idx_edits),
        "idx, gzipped": Reader(idx_files(True), lambda f: sources.mnist(data_dir=str(f)), is_idx, edits=idx_edits),
        "cifar-10 binary": Reader(
            {"data_batch_1.bin": CIFAR.tobytes()}, read_cifar, is_cifar,
            edits={"bin": (put(3073 * 17, b"\x09", b"\x0a", b"\xff"),)},
        ),
        "safetensors": Reader(
            {"some.safetensors": some}, lambda f: weights.load(f / "some.safetensors"), nothing, edits=tensors
        ),
        "encoder": Reader(
            encoder, read_encoder,
            lambda name, content, found: like(parsed(content), DATA if name == "results.json" else CONFIG),
            edits=TREES | tensors, refusals=refused,
        ),
        "checkpoint": Reader(
            checkpoints, read_checkpoint, nothing, is_step_before, {"metadata": (edit_json,), "METADATA": (edit_json,)},
            (CheckpointError, OSError), step_2,
        ),
        "config.json": Reader(
            {"config.json": RUN["config.json"]}, lambda f: configs.plain(run.load_config(f)),
            lambda name, content, found: like(parsed(content), CONFIG), edits=TREES, refusals=refused,
        ),
        "labels.json": Reader(
            {"config.json": RUN["config.json"], "labels.json": dumped(LABELS)}, read_labels, nothing,
            edits=TREES, refusals=refused, damaged=("labels.json",),
        ),
        "results.json, table": Reader(
            WRITTEN, read_table, lambda name, content, found: is_in_table(parsed(content)),
            lambda name, found, whole: found.count("head") == 1, TREES,
        ),
        "results.json, scores": Reader(
            {"results.json": dumped(SCORED)}, lambda f: scores.picture(scores.read(f)),
            lambda name, content, found: like(parsed(content), SCORED), edits=TREES, refusals=refused,
        ),
        "a run's files, report": Reader(
            runs, read_report, lambda name, content, found: is_shown(name[2:], content), lambda *_: True, TREES
        ),
        "metrics.jsonl": Reader(
            {"metrics.jsonl": LINES}, lambda f: metrics.read(f / "metrics.jsonl"), is_log, is_rest
        ),
        "sts": Reader(sts, lambda f: sources.sts(data_dir=str(f), **TEXT), is_sts, edits={"tsv": TEXTS}),
        "sick": Reader(
            sick, lambda f: sources.sick(data_dir=str(f), split="test", **TEXT), is_sick,
            edits={"txt": TEXTS}, damaged=("SICK_test_annotated.txt", "SICK_train.txt"),
        ),
        "multilabel": Reader(
            {"own.npz": saved(np.savez, **LABELLED)}, lambda f: sources.multilabel("own", data_dir=str(f), seed=0),
            is_labelled, edits={"npz": (edit_npz,)},
        ),
        "musk1": Reader(
            {"musk1.npz": saved(np.savez, **BAGS)}, lambda f: sources.musk1(data_dir=str(f), folds=2, fold=0, seed=0),
            is_bags, edits={"npz": (edit_npz,)},
        ),
        "planetoid": Reader(
            {"cora.npz": saved(np.savez, **GRAPH)}, lambda f: sources.planetoid("cora", data_dir=str(f)), is_graph,
            edits={"npz": (edit_npz,)},
        ),
        "csv": Reader(
            {"own.csv": CSV.encode()}, lambda f: sources.csv(str(f / "own.csv"), **OWN), is_csv,
            edits={"csv": (replace(b",", b"", b";", b",,"), replace(b'"', b"", b'""'),
                           replace(b"\n", b"", b"\r", b"\n\n"),
                           replace(b"0.", b"nan", b"inf", b"1e99", b"x", b" "))},
        ),
        "jsonl": Reader(
            {"own.jsonl": JSONL.encode()}, lambda f: sources.jsonl(str(f / "own.jsonl"), **OWN), is_jsonl,
            edits={"jsonl": (replace(b": ", b"", b": -", b": [", b": NaN, "), replace(b"}", b"", b"}}"),
                             replace(b'"a"', b'"b"', b'"c"'), nest)},
        ),
        "parquet": Reader(
            {"own.parquet": as_parquet()}, lambda f: sources.parquet(str(f / "own.parquet"), **OWN), nothing
        ),
        "banking77": Reader(
            {"categories.json": b'["x", "y"]', **{f"{part}.csv": BANKING.encode() for part in ("train", "test")}},
            lambda f: sources.banking77(data_dir=str(f), **TEXT), is_banking77,
            edits=TREES | {"csv": (replace(b",", b"", b",,"), replace(b'"', b"", b'""'))},
        ),
        "clinc150": Reader(
            {"data_small.json": dumped(CLINC)},
            lambda f: sources.clinc150(data_dir=str(f), variant="small", split="test", out_of_scope=False, **TEXT),
            is_clinc150, edits=TREES,
        ),
        "goemotions": Reader(
            {"labels.txt": b"joy\nfear\nrage\n", **{f"{part}.tsv": EMOTIONS.encode() for part in ("train", "test")}},
            lambda f: sources.goemotions(data_dir=str(f), split="test", **TEXT), is_goemotions,
            edits={"tsv": (replace(b"\t", b"", b"\t\t", b","), replace(b",", b"", b",-", b",9", b", "))},
        ),
        "wrench": Reader(
            {"own/label.json": b'{"0": "x", "1": "y"}', **{f"own/{part}.json": dumped(VOTED) for part in both}},
            lambda f: sources.wrench("own", data_dir=str(f), split="test", **TEXT), is_wrench, edits=TREES,
        ),
        "cranfield": Reader(
            cran, lambda f: sources.cranfield(data_dir=str(f), rows="documents", **TEXT), is_cranfield,
            edits={"cranqrel": (replace(b" ", b"", b" 0 ", b"\t", b" -"),)},
        ),
    }  # fmt: skip


NAMES = [f"{kind}, {part}" for kind in IMAGES for part in ("labelled", "unlabelled", "features")] + (
    "npz;npy;idx;idx, gzipped;cifar-10 binary;safetensors;encoder;checkpoint;config.json;labels.json;"
    "results.json, table;results.json, scores;a run's files, report;metrics.jsonl;sts;sick;cranfield;"
    "multilabel;musk1;planetoid;csv;jsonl;parquet;banking77;clinc150;goemotions;wrench"
).split(";")


COSTLY = ("cifar-10 binary", "checkpoint", "labels.json")  # 0.1 s or more each


@pytest.mark.parametrize("cases", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_no_damage_crashes_or_is_taken_as_whole(name, cases, kept, tmp_path):
    cases = 12 if name in COSTLY and cases == 60 else cases
    wrong = fuzz(readers(*kept)[name], name, tmp_path, cases)
    assert not wrong, f"{len(wrong)} of {cases}:\n" + "\n".join(wrong[:40])


def test_links_and_pipes(tmp_path):
    """Links are followed, but not in circles; nothing waits for a pipe."""
    images = tmp_path / "images"
    for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png", "unlabelled/0.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(picture(0, "png"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").write_bytes(picture(1, "png"))
    (images / "train/a/more").symlink_to(tmp_path / "elsewhere")
    (images / "unlabelled/2.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(images / "unlabelled/3.png")
    with listen() as said, limits():
        found = all_images(images)
    assert len(found) == 6 and same(found[4], found[3]) and same(found[5], found[3])
    (line,) = said
    assert line.startswith(f"{images}: 2 of 8 files left out: unlabelled/2.png, unlabelled/3.png: cannot be read as an")
    (images / "train/a/around").symlink_to(images)
    with pytest.raises(ValueError, match="around: links to a folder that holds it$"), limits():
        all_images(images)


def test_names_in_an_archive_are_never_paths(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name, array in ARRAYS.items():
            archive.writestr(f"{name}.npy", saved(np.save, array))
            archive.writestr(f"../{name}.npy", saved(np.save, array[:0]))
            archive.writestr(f"/tmp/labelfx_{name}.npy", b"")
    assert len(sources.npz(str(tmp_path / "own.npz")).train.labels) == 5
    tree = {"..": {"..": {"x": np.ones(1, np.float32)}}}
    weights.save(tmp_path / "0.safetensors", tree)
    assert same(weights.load(tmp_path / "0.safetensors"), tree)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.safetensors", "own.npz"]


@pytest.mark.parametrize("side", [9_500, 30_000])
def test_a_bomb_is_refused_before_it_goes_off(side, tmp_path):
    header = picture(0, "png")[:16] + struct.pack(">II", side, side) + b"\x08\x02\0\0\0"
    (tmp_path / "x.png").write_bytes(header + struct.pack(">I", zlib.crc32(header[12:])) + picture(0, "png")[33:])
    with limits(), pytest.raises(ValueError, match=rf"x.png: .*{side**2} pixels\) exceeds limit of \d+ pixels"):
        decode(tmp_path / "x.png", (8, 8, 3))
