"""Soft labels that are stored once, so that any student is trained on them without a teacher, and the command:

    python -m labelfx.reinforce --runs=DIR,DIR --views=K --top=10 --out=FOLDER

`config.method.soft_labels=dict(name="stored", file=FOLDER, ...)` reads them; `configs/reinforced.py` is a recipe. With
`--maps` it is what one run says of the places of each picture, for `dict(name="label_map", file=FOLDER)`.
"""

import argparse
import json
import sys

from labelfx.data import DataError
from labelfx.labels.reinforced import reinforce


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labelfx.reinforce", description=__doc__.partition(",")[0] + ".")
    parser.add_argument("--runs", metavar="DIR,DIR", required=True, help="workdirs of finished runs with a classifier")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the folder to write")
    parser.add_argument("--top", type=int, required=True, help="classes that are kept of each view")
    parser.add_argument("--views", type=int, default=1, help="of each row; 1 unless given")
    parser.add_argument("--augment", type=json.loads, help="of the views, as JSON; by default the first run's")
    parser.add_argument("--seed", type=int, default=0, help="of the views; 0 unless given")
    parser.add_argument("--maps", action="store_true", help="of places of the whole pictures instead of views")
    given = vars(parser.parse_args())
    try:
        reinforce(given.pop("runs").split(","), given.pop("out"), **given)
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
