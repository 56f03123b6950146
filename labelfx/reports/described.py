"""What the runs of a page are: methods in plain words, how rows were drawn and augmented, configurations."""

import collections
import json
from collections.abc import Sequence

from labelfx import config as configs
from labelfx.config.listing import sentence
from labelfx.reports.efficiency import USES
from labelfx.reports.figures import Page
from labelfx.reports.runs import Found, without_folders
from labelfx.reports.tables import Row


def plain_words(page: Page, runs: Sequence[Found], rows: Sequence[Row]) -> None:
    """What each method is, by the first sentence of its docstring, and how its network is used."""
    said: dict[str, str] = {}
    for run in runs:
        method = run.config.get("method", {})
        try:
            parts = [sentence("methods", method["name"])]
            if isinstance(objective := method.get("objective"), dict):
                parts.append("The objective: " + sentence("objectives", objective["name"]))
        except (AttributeError, ImportError, KeyError, TypeError, ValueError):
            continue  # of code that is not here
        said.setdefault(run.name, ". ".join(parts) + ".")
    said |= {row.eval: USES[row.eval] for row in rows if row.eval in USES}
    if said:
        page.heading("In plain words")
        page.table([["a row is a method and how its network is used", "what that is"], *said.items()])


def augmentations(page: Page, runs: Sequence[Found]) -> None:
    """Says with what the rows were augmented, and whether alike."""
    weak: dict[str, list[str]] = collections.defaultdict(list)
    others: dict[str, list[str]] = collections.defaultdict(list)
    for run in runs:
        try:
            found = configs.augmentations(run.config)
            parts = {(key == "weak", configs.one_line(method[key])) for method, key in found}
        except (AttributeError, ImportError, KeyError, TypeError, ValueError):
            continue  # without a configuration, or of a method that is not known here
        for is_weak, part in sorted(parts):
            names = (weak if is_weak else others)[part]
            names += [] if run.name in names else [run.name]
    if len(others) > 1:
        each = "; ".join(f"{', '.join(names)}: {part}" for part, names in others.items())
        page.text(f"Beware: rows are not augmented alike, and a difference between them may come from that. {each}.")
    elif others:
        page.text(f"Every row is trained with one augmentation: {next(iter(others))}.")
    for part, names in weak.items():
        page.text(
            f"Besides, {', '.join(names)}: as published a weaker one, {part}, for labelled images and for those that "
            "pseudo-labels are made of."
        )


def draws(page: Page, runs: Sequence[Found]) -> None:
    """Writes how the labelled rows were chosen."""
    views = [run.config["labels"] for run in runs if run.config]
    names = {view["name"] for view in views}
    said = []
    if "per_class" in names:
        said.append(
            "as many of every class, a balanced draw, which nobody can make before labelling: who sends rows to be "
            "labelled gets a uniform one"
        )
    if "uniform" in names:
        said.append("uniformly at random")
    said += dict.fromkeys(f"by {view['query']['name']}, in rounds" for view in views if view["name"] == "queried")
    if said:
        page.text(f"Labelled rows were drawn {'; or '.join(said)}.")


def configurations(page: Page, runs: Sequence[Found]) -> None:
    """What differs between runs of different names, and the first configuration of each name."""
    firsts: dict[str, dict] = {}
    for run in runs:
        if run.config:
            firsts.setdefault(run.name, run.config)
    if not firsts:
        return
    with page.folded("Configuration"):
        values: dict[str, dict[str, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
        flat = {name: configs.what_matters(without_folders(config)) for name, config in firsts.items()}
        for path in sorted({path for each in flat.values() for path in each}):
            for name, each in flat.items():
                values[path.removeprefix("config.")][json.dumps(each[path]) if path in each else "nothing"].append(name)
        differ = {path: each for path, each in values.items() if len(each) > 1}
        if differ:
            page.text("What differs between names, of all that can change a result:")
            said = (["; ".join(f"{v}: {', '.join(names)}" for v, names in each.items())] for each in differ.values())
            page.table([["key", "value: whose"], *([path, *each] for path, each in zip(differ, said, strict=True))])
        for name, config in firsts.items():
            page.code(f"Configuration of {name}", json.dumps(without_folders(config), indent=1))
