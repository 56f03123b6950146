"""What a run needs of a TPU slice, found without a TPU: the TPU compiler on the very step that `labelfx.train` runs.

    python -m labelfx.plan --config=simclr --topology=v5e:4x4,v5p:4x4x4 [--fsdp=4] [--config.batch.unlabelled=4096]

prints a Markdown table: whether the step fits, memory by kind, FLOPs, bytes, collectives, and the roofline. The shapes
of the built-in data sets are known, those of others are given by `--image_shape=H,W,C`, `--num_classes` and
`--num_examples`, or by a function `blank_NAME` beside a source of your own (`labelfx.data.sources`). No data is read
but some 50 images, where they are a folder's: below the table stands how many a second the step wants, and how many
this machine can decode. The compiler is the package libtpu: `pip install 'labelfx[plan]'`.
"""

from typing import Any

import jax
from absl import flags as absl_flags

from labelfx.config import ConfigError, command
from labelfx.hardware.plans import plan


def main() -> None:
    absl_flags.DEFINE_integer("fsdp", None, "chips that share one copy of the state; the config's by default")
    absl_flags.DEFINE_list("image_shape", None, "H,W,C of the images, where the data source does not tell")
    absl_flags.DEFINE_integer("num_classes", None, "classes of the data set, where the data source does not tell")
    absl_flags.DEFINE_integer("num_examples", None, "training images, where the data source does not tell")
    strings = {"topology": "slices such as v5e:4x4, with commas between them"}
    jax.config.update("jax_platforms", "cpu")  # the TPU is one to compile for; there is none to run on

    def show(flags: Any) -> None:
        shape = tuple(int(side) if side.isdecimal() else 0 for side in flags.image_shape or ())
        if flags.image_shape is not None and (len(shape) != 3 or 0 in shape):
            raise ConfigError(f"--image_shape={','.join(flags.image_shape)}: must be H,W,C, three integers >= 1")
        sizes = {"num_classes": flags.num_classes, "num_examples": flags.num_examples}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ConfigError(f"--{name}={value}: must be an integer >= 1")
        print(plan(flags.config, flags.topology.split(","), fsdp=flags.fsdp, image_shape=shape, **sizes), end="")

    command.run(show, config=True, strings=strings)


if __name__ == "__main__":
    main()
