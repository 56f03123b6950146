"""What several finished runs name the training rows, for self-training on their agreement, and the command:

    python -m labelfx.vote DIR DIR... --out=FILE.npz

`config.labels.weak=dict(name="recorded", path=FILE.npz)` reads the file; `configs/self_training.py` is a recipe.
"""

import argparse
import sys

from labelfx.labels.agreement import vote


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labelfx.vote", description="Votes of runs on the training rows.")
    parser.add_argument("dirs", metavar="DIR", nargs="+", help="the workdir of a finished run with a classifier")
    parser.add_argument("--out", metavar="FILE", required=True, help="the .npz file to write")
    flags = parser.parse_args()
    try:
        vote(flags.dirs, flags.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
