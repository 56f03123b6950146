"""Results side by side, and the command: `python -m labelfx.table DIR... [--baseline=NAME]` prints a Markdown table."""

import argparse
import sys

from labelfx.reports.tables import Row as Row
from labelfx.reports.tables import differences as differences
from labelfx.reports.tables import half_width as half_width
from labelfx.reports.tables import read as read
from labelfx.reports.tables import table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labelfx.table", description="Results as a Markdown table.")
    parser.add_argument("dirs", metavar="DIR", nargs="+", help="a folder with results.json files at or below it")
    parser.add_argument("--baseline", metavar="NAME", help="a name, or name/eval: adds paired differences to it")
    flags = parser.parse_args()
    try:
        print(table(flags.dirs, flags.baseline), end="")
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
