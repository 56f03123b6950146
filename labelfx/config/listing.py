"""What there is to choose from: everything that a configuration may name, with its paper and its keys."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.config.annotations import Part
from labelfx.config.errors import place

WIDTH = 120
SECTIONS = {
    "methods": configs.METHODS,
    "objectives": Part("objectives"),
    "pseudo-labels": Part("methods.targets.pseudo_labels"),
    "soft labels": Part("methods.targets.soft_labels"),
    "data sources": configs.DATA,
    "label views": configs.LABELS,
    "what is said": configs.WEAK,
    "augmentations": Part("data.augment"),
    "mixings": Part("data.mixing"),
    "pairs": Part("data.pairs"),
    "transformations": Part("data.transformations", ("images",)),
    "batch miners": configs.MINERS,
    "selections": Part("mining.rules", ("rng", "found", "count")),
    "models": configs.BACKBONES,
    "classifiers": configs.CLASSIFIERS,
    "heads": Part("models.heads"),
    "relabelling rules": Part("labels.rules", ("evidence", "rng")),
    "queries": configs.QUERIES,
    "optimisers": configs.OPTIMIZERS,
    "schedules": Part("loop.optim", ("peak", "steps")),
    "evals": configs.EVALS,
    "derivations": configs.DERIVED,
    "condensations": configs.CONDENSED,
}


def table() -> dict[str, dict[str, str]]:
    """Section -> name -> one line with its paper."""
    recipes = {name: _line(_of_recipe(path)) for name, path in sorted(configs.recipes().items())}
    return {"recipes": recipes} | {
        section: {name: sentence(section, name) for name in configs.names(part)} for section, part in SECTIONS.items()
    }


def sentence(section: str, name: str) -> str:
    """The first sentence of an entry's docstring, with its paper; ConfigError where there is no such entry."""
    part = SECTIONS[section]
    return _line(_of(part, configs.function(part, name)))


def short(found: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Sections with an entry a line, cut at `WIDTH` characters before its paper, if it has one."""
    for section, entries in found.items():
        yield section
        width = max(map(len, entries))
        for name, line in entries.items():
            start = f"  {name:<{width}}  "
            paper = (re.findall(r"\([^()]*\d{4}[^()]*\)$", line) or [""])[0]
            sentence, paper = line.removesuffix(paper), _cut(paper, WIDTH // 3, " ...)")
            yield start + f"{_cut(sentence, WIDTH - len(start) - len(paper) - 1, ' ...')} {paper}".rstrip()


def _cut(text: str, width: int, placeholder: str) -> str:
    return textwrap.shorten(text, width, placeholder=placeholder, break_on_hyphens=False)


def describe(name: str) -> Iterator[str]:
    """All that is known of the entries of this name, in lines.

    Raises:
      ConfigError: there is none.
    """
    recipes, known = configs.recipes(), {section: configs.names(part) for section, part in SECTIONS.items()}
    if name not in {*recipes, *sum(known.values(), [])}:
        meant = configs.guess(name, {*recipes, *sum(known.values(), []), *SECTIONS, "recipes"})
        hint = f"did you mean {meant!r}? " if meant else ""
        raise ConfigError(f"{name!r}: no such entry; {hint}python -m labelfx.list has them all")
    if name in recipes:
        yield f"{name}, one of recipes ({recipes[name]})"
        yield textwrap.indent(_of_recipe(recipes[name]), "  ")
        yield from (f"    {path} = {value!r}" for path, value in configs.flatten(configs.recipe(name)).items())
    for section, part in SECTIONS.items():
        if name in known[section]:
            yield from _entry(section, part, configs.function(part, name))


def _entry(section: str, part: Part, function: Callable) -> Iterator[str]:
    yield f"{function.__name__}, one of {section} ({place(function)})"
    yield textwrap.indent(_of(part, function), "  ")
    positional, takes = configs.parameters(function)
    if positional:
        yield f"  arguments: {', '.join(positional)}" + (
            ", which a run provides" if part.where in configs.PROVIDED else ""
        )
    if part.where == "methods":
        yield f"  recipes: {', '.join(configs.recipes_of(function.__name__)) or 'none'}"
    takes = takes | (configs.parameters(part.common)[1] if part.common else {})
    width = 2 + max(map(len, takes), default=0)
    yield "  keys:" if takes else "  no keys"
    for key, parameter in takes.items():
        default = "" if parameter.default is parameter.empty else f"; {parameter.default!r} by default"
        start = f"    {key:<{width}}"
        yield textwrap.fill(
            configs.describe(parameter.annotation) + default,
            WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
        )


def _of_recipe(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _of(part: Part, function: Callable) -> str:
    """A method's idea stands in its module's docstring; that of its builder says how it is done here."""
    own = inspect.getdoc(function) or ""
    return f"{inspect.getdoc(sys.modules[function.__module__]) or own}" if part.where == "methods" else own


def _line(text: str) -> str:
    paragraph, text = (" ".join(each.split()) for each in (text.partition("\n\n")[0], text))
    sentence = re.split(r"(?<!\.\.)(?<!e\.g)(?<!i\.e)\.\s(?=[A-Z`])", paragraph)[0].rstrip(".")
    paper = re.search(r"\(([^()]*?(?:19|20)\d\d[^()]*)\)", text)
    return sentence if paper is None or paper[0] in sentence else f"{sentence} {paper[0]}"
