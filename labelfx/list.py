"""What there is to choose from, and the command: `python -m labelfx.list`."""

import inspect
import re
import sys

from labelfx import config
from labelfx.types import Part

SECTIONS = {
    "methods": config.METHODS,
    "objectives": Part("objectives"),
    "pseudo-labels": Part("pseudo_labels"),
    "data sources": config.DATA,
    "label views": config.LABELS,
    "augmentations": Part("data.augment"),
    "pairs": Part("data.pairs"),
    "batch miners": config.MINERS,
    "selections": Part("mining.rules", ("rng", "found", "count")),
    "models": config.BACKBONES,
    "heads": Part("models.heads"),
    "optimisers": config.OPTIMIZERS,
    "schedules": Part("optim", ("peak", "steps")),
    "evals": config.EVALS,
}


def table() -> dict[str, dict[str, str]]:
    """Section -> name -> one line with its paper."""
    return {
        section: {name: _line(part, config.function(part, name)) for name in config.names(part)}
        for section, part in SECTIONS.items()
    }


def _line(part: Part, function) -> str:
    module = inspect.getdoc(sys.modules[function.__module__]) or ""
    # A method's idea stands in its module's docstring; that of its builder says how it is done here.
    text = " ".join((module if part.where == "methods" else inspect.getdoc(function) or "").split())
    sentence = re.split(r"(?<!\.\.)(?<!e\.g)(?<!i\.e)\.\s(?=[A-Z`])", text)[0].rstrip(".")
    paper = re.search(r"\(([^()]*?(?:19|20)\d\d[^()]*)\)", text)
    return sentence if paper is None or paper[0] in sentence else f"{sentence} {paper[0]}"


def main() -> None:
    found = table()
    width = 2 + max(len(name) for lines in found.values() for name in lines)
    for section, lines in found.items():
        print(section)
        for name, line in lines.items():
            print(f"  {name:<{width}}{line}")


if __name__ == "__main__":
    main()
