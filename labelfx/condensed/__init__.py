"""Small data sets out of large ones and finished runs: few images, each with what teachers say of it.

`python -m labelfx.condense HOW` runs one: HOW is a function of a module here. Its positional parameters are provided by
name, `runs` (a tuple of `labelfx.derived.Finished`, in the order of the command) and `rng` (a NumPy generator); its
keyword-only parameters are the schema of the settings. It returns `Condensed`.
"""

from typing import NamedTuple

import numpy as np


class Condensed(NamedTuple):
    """images uint8 [N, H, W, C]; labels int32 [N], the class that a row was made for; target float32 [N, classes], the
    soft label; stored: other arrays to keep beside them, by name."""

    images: np.ndarray
    labels: np.ndarray
    target: np.ndarray
    stored: dict[str, np.ndarray] = {}
