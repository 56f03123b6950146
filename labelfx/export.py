"""A trained encoder as one file that runs without labelfx: `python -m labelfx.export --workdir=DIR --out=FILE`.

The file is what `jax.export` serialises: StableHLO with the weights inside, for any number of rows, on CPU, CUDA GPUs
and TPUs. It takes the rows that the run took (uint8 [N, H, W, C], or token ids int32 [N, L]) and gives a dict with
`features`, float32 [N, F], and `probabilities`, float32 [N, classes], where the method trained a classifier. Writing
and reading it needs the library `flatbuffers`, which the extra `export` brings.
"""

from pathlib import Path

import jax
import jax.export

from labelfx.config import ConfigError, command, local, replacing
from labelfx.finished.encoder import load

PLATFORMS = ("cpu", "cuda", "tpu")


def export(workdir: str | Path, out: str | Path) -> None:
    """The command as a function.

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`, or flatbuffers is not there.
      OSError: `out` cannot be written; nothing is left of it.
    """
    out, encoder = local(out), load(workdir)
    rows = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("n"), *encoder.shape), encoder.dtype)
    with replacing(out) as file:
        exported = jax.export.export(jax.jit(encoder.outputs), platforms=PLATFORMS)(rows)
        try:
            file.write(exported.serialize())
        except ImportError as error:
            raise ConfigError("export needs flatbuffers; pip install 'labelfx[export]'") from error


def main() -> None:
    strings = command.WORKDIR | {"out": "the file to write"}
    command.run(lambda flags: export(flags.workdir, flags.out), config=False, strings=strings)


if __name__ == "__main__":
    main()
