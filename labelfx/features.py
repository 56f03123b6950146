"""Features of images from a trained encoder, and the command:

    python -m labelfx.features --workdir=DIR --images=FOLDER --out=FILE.npz

`--images` is a folder of images in any layout, or `train` or `test` for that split of the run's own data (`./train` is
a folder). Image files get the shape that the run trained on in the way of the source `folder`: grey or RGB, upright,
resized until they cover the shape, cropped to its centre. What is no image or cannot be read is left out, with one line
on standard error that names it; hidden files are ignored.

FILE holds `names` (paths below the folder, sorted, with `/`; of a split, `test/ROW`) and `features` (float32 [N, F]):
arrays of an .npz, or columns of a .parquet, which needs pyarrow (`pip install 'labelfx[export]'`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from labelfx.config import ConfigError, command, local, replacing
from labelfx.data import DataError
from labelfx.data.pictures import blocks_of
from labelfx.finished.encoder import Encoder, load
from labelfx.loop.run import keep_compiled_programs, load_config, load_data


def features(workdir: str | Path, images: str | Path, out: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The command as a function.

    Returns:
      What it writes to `out`: names, strings [N], and features, float32 [N, F].

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`; no image can be read; `out` is no .npz or .parquet, or
        pyarrow is not there.
      OSError: `out` cannot be written; nothing is left of it.
    """
    write = _writer(out := local(out))
    keep_compiled_programs()
    encoder = load(workdir)
    with replacing(out) as file:  # opened now: a place that cannot be written to costs no time
        if str(images) in ("train", "test"):
            found = _of_split(encoder, encoder.workdir, str(images))
        else:
            found = _of_folder(encoder, local(images))
        write(file, *found)
    print(f"{out}: {len(found[0])} images, {found[1].shape[1]} features each")
    return found


def _of_split(encoder: Encoder, workdir: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    found = getattr(load_data(load_config(workdir), workdir)[0], split)
    if found is None:
        raise ConfigError("--images=test: the run's data have no test split; train is there")
    rows = found.inputs
    try:
        return np.array([f"{split}/{row}" for row in range(len(rows))]), encoder(rows)
    except ValueError as error:  # pairs of texts, or a damaged file
        raise ConfigError(f"--images={split}: {error}") from error


def _of_folder(encoder: Encoder, root: Path) -> tuple[np.ndarray, np.ndarray]:
    if not root.is_dir():
        raise ConfigError(f"--images={root}: neither a folder nor 'train' or 'test'")
    if len(encoder.shape) != 3 or encoder.shape[2] not in (1, 3):
        raise ConfigError(f"--images={root}: files are grey or RGB images, this run's rows are of {encoder.shape}")
    try:
        found = [(names, encoder(images)) for names, images in blocks_of(root, encoder.shape)]
    except DataError as error:
        raise ConfigError(f"--images={error}") from None
    return np.concatenate([names for names, _ in found]), np.concatenate([each for _, each in found])


def _writer(out: Path) -> Callable[..., None]:
    if out.suffix == ".npz":
        return lambda file, names, features: np.savez(file, names=names, features=features)
    if out.suffix != ".parquet":
        raise ConfigError(f"--out={out}: must end in .npz or .parquet")
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(f"--out={out}: needs pyarrow ({error}); pip install 'labelfx[export]'") from error

    def write(file, names, features):
        texts = [name.encode(errors="replace").decode() for name in names]  # a file's name may be no Unicode
        rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.ravel()), features.shape[1])
        parquet.write_table(pyarrow.table({"names": texts, "features": rows}), file)

    return write


def main() -> None:
    strings = command.WORKDIR | {
        "images": "a folder of images, or train or test: that split of the run's data",
        "out": "the .npz or .parquet file to write",
    }
    command.run(lambda flags: features(flags.workdir, flags.images, flags.out), config=False, strings=strings)


if __name__ == "__main__":
    main()
