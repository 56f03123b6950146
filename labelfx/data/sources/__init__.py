"""Data sources: everything that a run may read, from public file formats, without a download.

Nothing pickled is ever loaded. A missing file raises FileNotFoundError, a damaged or foreign one ValueError: one line
with the file, what it holds and what is allowed.
"""

from labelfx.data.sources.arrays import arrays
from labelfx.data.sources.folders import folder
from labelfx.data.sources.images import cifar10, digits, digits_corrupted, fashion_mnist, mnist, npz, tfds
from labelfx.data.sources.text import cranfield, sick, sts

__all__ = [
    "arrays",
    "cifar10",
    "cranfield",
    "digits",
    "digits_corrupted",
    "fashion_mnist",
    "folder",
    "mnist",
    "npz",
    "sick",
    "sts",
    "tfds",
]
