"""Data sources: everything that a run may read, from public file formats, without a download.

Nothing pickled is ever loaded. A missing file raises FileNotFoundError, a damaged or foreign one ValueError: one line
with the file, what it holds and what is allowed.

A function `blank_NAME` beside a source NAME gives a `Dataset` of the shapes and dtypes of its arrays, whatever is in
them, so that `labelfx.plan` need not read it: rows may be `np.broadcast_to(np.uint8(0), (N, H, W, C))`, which takes no
memory. Its keyword-only parameters are those of the source's that it needs; what stands behind the colon of `NAME:...`
it takes first, as the source does. The built-in sources have theirs in `labelfx/hardware/blank.py`.
"""

from labelfx.data.sources.arrays import arrays
from labelfx.data.sources.folders import folder
from labelfx.data.sources.graphs import planetoid
from labelfx.data.sources.images import (
    cifar10,
    cifar10h,
    cifar10n,
    digits,
    digits_corrupted,
    fashion_mnist,
    mnist,
    npz,
    tfds,
)
from labelfx.data.sources.labelled_texts import banking77, clinc150, goemotions, wrench
from labelfx.data.sources.own import csv, jsonl, parquet
from labelfx.data.sources.scenes import pasted
from labelfx.data.sources.tables import breast_cancer, diabetes, multilabel, musk1
from labelfx.data.sources.text import cranfield, sick, sts

__all__ = [
    "arrays",
    "banking77",
    "breast_cancer",
    "cifar10",
    "cifar10h",
    "cifar10n",
    "clinc150",
    "cranfield",
    "csv",
    "diabetes",
    "digits",
    "digits_corrupted",
    "fashion_mnist",
    "folder",
    "goemotions",
    "jsonl",
    "mnist",
    "multilabel",
    "musk1",
    "npz",
    "parquet",
    "pasted",
    "planetoid",
    "sick",
    "sts",
    "tfds",
    "wrench",
]
