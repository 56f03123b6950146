"""What there is to choose from: `python -m labelfx.list`; one section: `python -m labelfx.list recipes`; all about one
entry, with its keys: `python -m labelfx.list simclr`."""

import argparse
import signal
import sys

from labelfx.config import ConfigError
from labelfx.config.listing import SECTIONS as SECTIONS
from labelfx.config.listing import describe, short, table


def main() -> None:
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader such as head may end before it has read all
    parser = argparse.ArgumentParser(prog="python -m labelfx.list", description="What there is to choose from.")
    parser.add_argument("name", nargs="*", help="a section, or an entry, whose keys are shown; everything by default")
    name = " ".join(parser.parse_args().name)
    try:
        if name in ("", "recipes", *SECTIONS):
            found = table()
            print("\n".join(short({name: found[name]} if name else found)))
        else:
            print("\n".join(describe(name)))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
