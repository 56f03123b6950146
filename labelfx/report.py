"""A run, a comparison or a sweep as one page, and the command:

    python -m labelfx.report DIR... [--out=report.html] [--baseline=NAME]

The page holds all it shows, so that it can be read without a network or sent to a colleague; it has no script. Beside
it stands the same in Markdown, with the numbers of every figure. What cannot be shown is left out with a line that says
why. Predictions, mistakes and maps of embeddings are for a single run whose weights and data are there.
"""

import argparse
import sys

from labelfx.reports.page import report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m labelfx.report", description="Runs as one page, in HTML and Markdown."
    )
    parser.add_argument("dirs", metavar="DIR", nargs="+", help="a run's folder, or one with runs below it")
    parser.add_argument("--out", metavar="FILE", default="report.html", help="report.html by default")
    parser.add_argument("--baseline", metavar="NAME", help="a name, or name/eval; supervised by default")
    flags = parser.parse_args()
    try:
        print(report(flags.dirs, flags.out, flags.baseline))
    except (OSError, ValueError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, FileNotFoundError | ValueError) else 1) from None


if __name__ == "__main__":
    main()
