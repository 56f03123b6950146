"""experiments/PAPERS.md: a row for each of the 234 entries, and nothing in it that is not there."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import labelfx
from labelfx import config as configs
from labelfx import list as listing

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "experiments" / "PAPERS.md").read_text()
LISTED, BESIDE = PAGE.split("\n## Not from the list\n")
ROWS = [re.split(r"(?<!\\) *\| *", line)[1:-1] for line in LISTED.splitlines() if line.startswith("| P")]
SECTIONS = {"methods": "methods", "objectives": "objectives", "selections": "mining", "batch miners": "data"}


@functools.cache
def defined(path):
    """Functions and classes of a file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def stands(name):
    """Whether what stands in backticks is there: a command, a file with a test or without, a function of a room."""
    if name.startswith("python -m "):
        command, _, recipe = name.removeprefix("python -m ").partition(" --config=")
        return importlib.util.find_spec(command) is not None and (not recipe or stands(f"configs/{recipe}.py"))
    if "/" in name:
        path, _, test = name.partition("::")
        return (ROOT / path).exists() and (not test or test in defined(ROOT / path))
    room, _, function = name.partition(".")
    folder = Path(labelfx.__file__).parent / room
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    return any(function in defined(file) for file in files if file.exists())


def names(text):
    return re.findall(r"`([^`]+)`", text)


def test_every_entry_has_its_row():
    assert [number for number, *_ in ROWS] == [f"P{number}" for number in range(1, 235)]
    assert {len(row) for row in ROWS} == {6}
    titles = [title for _, title, *_ in ROWS]
    assert all(titles) and len(set(titles)) == len(titles)


def test_a_row_says_what_there_is():
    for number, _, what, test, seen, _ in ROWS:
        if re.match("not yet; planned: .|nothing to run: .", what):
            assert not test and not seen, number
        else:
            assert names(what) and names(test), number
            assert seen.startswith("none: ") or (re.search(r"\d", seen) and names(seen)), number


def test_every_name_is_there():
    missing = [name for name in names(PAGE) if not stands(name)]
    assert not missing, f"named and not there: {', '.join(missing)}"


def test_every_number_stands_where_its_runs_are_told():
    pages = [ROOT / "experiments" / "README.md", ROOT / "configs" / "README.md"]
    pages += [*ROOT.glob("configs/*.py"), *ROOT.glob("colabs/*.ipynb")]
    told = set(re.findall(r"\d+\.\d+", "\n".join(page.read_text() for page in pages)))
    for number, _, _, _, seen, _ in ROWS:
        said = re.findall(r"\d+\.\d+", seen)
        assert set(said) <= told, f"{number}: {', '.join(sorted(set(said) - told))}"


def test_whatever_a_configuration_may_name_has_its_place():
    said = set(names(PAGE))
    missing = [
        f"{room}.{name}"
        for section, room in SECTIONS.items()
        for name in configs.names(listing.SECTIONS[section])
        if f"{room}.{name}" not in said
    ]
    assert not missing, f"in no row: {', '.join(missing)}; if it is no entry's, it goes beneath the table"
