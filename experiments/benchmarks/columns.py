"""What columns of ImageNet's size take: memory, the label view, the hash of all that is said, a batch.

    python -m experiments.benchmarks.columns --workdir=/tmp/labelfx/benchmarks

1,281,167 rows of 1,000 classes without a picture; each kind of column by itself. Columns are in no checkpoint: they are
made from the configuration again and checked by their hash, and a batch takes those alone that its step reads.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from labelfx.config import command, make_folder, write_text
from labelfx.data import Split
from labelfx.data.batches import batch_at, label_view
from labelfx.data.miners import uniform
from labelfx.hardware.blank import Blanks
from labelfx.loop.said import identity

ROWS, CLASSES, BATCH = 1_281_167, 1000, 4096
COLUMNS: dict[str, dict[str, Any]] = {
    "label alone": {},
    "votes int8 of 10 judges": {"votes": ((10,), np.int8)},
    "candidates bool": {"candidates": ((CLASSES,), bool)},
    "target float32": {"target": ((CLASSES,), np.float32)},
}


def columns(rows: int = ROWS) -> str:
    """A table in Markdown."""
    lines = ["| columns | GB | half of the rows said, s | hash, s | a batch of 4,096, ms |", "| --- |" + " ---: |" * 4]
    label = np.arange(rows, dtype=np.int32) % CLASSES
    inputs = Blanks((rows, 224, 224, 3), np.dtype(np.uint8))
    for name, kinds in COLUMNS.items():
        made = {key: np.ones((rows, *shape), dtype) for key, (shape, dtype) in kinds.items()}
        begin = time.perf_counter()
        view = label_view(Split(inputs, label, made), np.arange(0, rows, 2))
        seen = time.perf_counter()
        identity(view)
        hashed = time.perf_counter()
        how: dict[str, Any] = {"view": view, "seed": 0, "miner": uniform(), "table": {}}
        how["sizes"] = {"labelled": BATCH, "unlabelled": 0}
        batch_at(0, **how, inputs=False)  # draws the order of the pass
        started = time.perf_counter()
        for step in range(1, 6):
            batch_at(step, **how, inputs=False)
        taken = (time.perf_counter() - started) / 5
        size = sum(column.nbytes for column in view.split.columns.values()) / 1e9
        lines.append(f"| {name} | {size:.2f} | {seen - begin:.1f} | {hashed - seen:.1f} | {1000 * taken:.1f} |")
    return "\n".join(lines) + "\n"


def main(values: Any) -> None:
    make_folder(Path(values.workdir))  # before the minutes that the table takes
    write_text(Path(values.workdir) / "columns.md", table := columns())
    print(table)


if __name__ == "__main__":
    command.run(main, config=False)
