"""What `test_fuzz.py` is made of: seeded damage to files, and a judge of what a reader makes of it."""

import contextlib
import io
import json
import logging
import resource
import shutil
import signal
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

SECONDS, GIGABYTES = 10, 2  # what a case may take, and what a reader may allocate beyond what there is
Edit = Callable[[np.random.Generator, bytes], bytes]


class Reader(NamedTuple):
    """Something that reads files, and what it must make of damaged ones.

    files: whole ones, by their path below a folder; one is damaged in each case.
    read: folder -> what is read, a tree of arrays and plain values.
    harmless: (damaged file, its content, what was read of it) -> whether an independent look finds nothing wrong with
      that content. Asked only where something else was read than of the whole files.
    left_out: (damaged file, what was read, of whole files) -> whether it is what is there without that file.
    edits: damage aimed at a format's fields, by the suffix of the file.
    refusals: what the commands make one line of.
    """

    files: Mapping[str, bytes]
    read: Callable[[Path], Any]
    harmless: Callable[[str, bytes, Any], bool]
    left_out: Callable[[str, Any, Any], bool] = lambda name, found, whole: False
    edits: Mapping[str, tuple[Edit, ...]] = {}
    refusals: tuple[type[Exception], ...] = (ValueError, OSError)
    damaged: tuple[str, ...] = ()  # of the files; () is all of them


def a_range(rng: np.random.Generator, content: bytes) -> slice:
    start = int(rng.integers(len(content) + 1))
    return slice(start, start + int(min(rng.integers(1, 64), len(content) - start)))


def flip_bits(rng: np.random.Generator, content: bytes) -> bytes:
    array = np.frombuffer(content, np.uint8).copy()
    for place in rng.integers(len(array), size=rng.integers(1, 9)):
        array[place] ^= np.uint8(1 << rng.integers(8))
    return array.tobytes()


def truncate(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: rng.integers(len(content))] if rng.random() < 0.5 else content[: -int(rng.integers(1, 16))]


def extend(rng: np.random.Generator, content: bytes) -> bytes:
    return content + (rng.bytes(rng.integers(1, 64)) if rng.random() < 0.5 else bytes(rng.integers(1, 64)))


def overwrite(rng: np.random.Generator, content: bytes) -> bytes:
    where = a_range(rng, content)
    return content[: where.start] + rng.bytes(where.stop - where.start) + content[where.stop :]


def zero(rng: np.random.Generator, content: bytes) -> bytes:
    where = a_range(rng, content)
    return content[: where.start] + bytes(where.stop - where.start) + content[where.stop :]


def duplicate(rng: np.random.Generator, content: bytes) -> bytes:
    where = a_range(rng, content)
    return content[: where.stop] + content[where] + content[where.stop :]


def delete(rng: np.random.Generator, content: bytes) -> bytes:
    where = a_range(rng, content)
    return content[: where.start] + content[where.stop :]


def begin_alike(rng: np.random.Generator, content: bytes) -> bytes:
    """Bits flipped among the first bytes, where headers are."""
    return flip_bits(rng, content[:64]) + content[64:]


DAMAGE = (flip_bits, truncate, extend, overwrite, zero, duplicate, delete, begin_alike)


def put(offset: int, *values: bytes) -> Edit:
    """One of the values in place of what is at an offset."""

    def edit(rng, content):
        value = values[rng.integers(len(values))]
        return content[:offset] + value + content[offset + len(value) :]

    return edit


def replace(old: bytes, *values: bytes) -> Edit:
    """One of the values in place of one of the occurrences of `old`."""

    def edit(rng, content):
        parts = content.split(old)
        at = int(rng.integers(1, len(parts)))
        return old.join(parts[:at]) + values[rng.integers(len(values))] + old.join(parts[at:])

    return edit


VALUES = (None, True, -1, 0, 1, 10**18, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x", "../..", [], {})


def replace_value(rng: np.random.Generator, tree: Any) -> Any:
    """Another value, a missing or an unknown key somewhere in nested dicts and lists."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        items = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
        key = list(items)[rng.integers(len(items))]
        kind = rng.integers(8)
        if kind == 0 and not isinstance(items[key], dict):
            del items[key]
        elif kind == 1 and isinstance(tree, dict):
            items[f"{key}s"] = items.pop(key)
        else:
            items[key] = replace_value(rng, items[key])
        return items if isinstance(tree, dict) else [*items.values()]
    return VALUES[rng.integers(len(VALUES))]


def edit_json(rng: np.random.Generator, content: bytes) -> bytes:
    return json.dumps(replace_value(rng, json.loads(content)), indent=2).encode()


def nest(rng: np.random.Generator, content: bytes) -> bytes:
    """Brackets deeper than a recursive parser can follow."""
    return b"[" * 100_000 if rng.random() < 0.5 else b'{"a":' * 100_000


def same(left: Any, right: Any) -> bool:
    """Equal in structure, types and to the bit."""
    (ours, shape), (theirs, other) = (jax.tree.flatten(tree, is_leaf=lambda x: x is None) for tree in (left, right))

    def equal(one, another):
        if not isinstance(one, np.ndarray | jax.Array):
            return type(one) is type(another) and (one == another or one != one)
        one, another = np.asarray(one), np.asarray(another)
        return (one.dtype, one.shape, one.tobytes()) == (another.dtype, another.shape, another.tobytes())

    return shape == other and all(map(equal, ours, theirs))


class TooLong(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


@contextlib.contextmanager
def limits():
    """TooLong after `SECONDS`; MemoryError `GIGABYTES` beyond what the process has mapped by now."""

    def stop(*_):
        raise TooLong

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIGABYTES * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def listen():
    """What is said meanwhile on standard error and in this package's log: a list of lines, one an utterance."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler, logger, stream = Handler(), logging.getLogger("labelfx"), io.StringIO()
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stderr(stream):
            yield said
    finally:
        logger.removeHandler(handler)
        said += filter(None, stream.getvalue().splitlines())


def judge(reader: Reader, whole: Any, folder: Path, name: str, content: bytes) -> tuple[str, str]:
    """refused, skipped, accepted, crash or silent; and why."""
    for each, kept in reader.files.items():
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_bytes(content if each == name else kept)
    begin = time.monotonic()
    try:
        with listen() as said, limits():
            found = reader.read(folder)
    except reader.refusals as error:
        line = str(error)
        if "\n" in line or not line.strip():
            return "crash", f"not one line: {line!r}"
        if str(folder) not in line and Path(name).name not in line:
            return "crash", f"does not say where: {line!r}"
        return "refused", line
    except (Exception, TooLong) as error:
        return "crash", f"{type(error).__name__} after {time.monotonic() - begin:.1f} s: {str(error)[:200]}"
    if said:
        if not any(str(folder) in line or Path(name).name in line for line in said) or any("\n" in x for x in said):
            return "crash", f"said {said}"
        fine = same(found, whole) or reader.left_out(name, found, whole)
        return ("skipped", said[0]) if fine else ("silent", f"not left out as said: {said}")
    if same(found, whole) or reader.harmless(name, content, found):
        return "accepted", ""
    return "silent", f"read {str(found)[:200]}"


def damage(reader: Reader, label: str, seed: int) -> tuple[str, bytes]:
    """Case `seed` of a reader: a file and its damaged content."""
    rng = np.random.default_rng([zlib.crc32(label.encode()), seed])
    names = reader.damaged or tuple(reader.files)
    name = names[rng.integers(len(names))]
    aimed = next((edits for suffix, edits in reader.edits.items() if name.endswith(suffix)), ())
    kinds = aimed if aimed and rng.random() < 0.4 else DAMAGE
    kind = kinds[rng.integers(len(kinds))]
    if not reader.files[name]:
        kind = extend
    return name, kind(rng, reader.files[name])


def fuzz(reader: Reader, label: str, folder: Path, cases: int) -> list[str]:
    """Prints a line of the table; returns what went wrong."""
    counts = dict.fromkeys(("refused", "skipped", "accepted", "crash", "silent"), 0)
    wrong = []
    name = next(iter(reader.files))
    whole_folder = folder / "whole"
    for each, kept in reader.files.items():
        (whole_folder / each).parent.mkdir(parents=True, exist_ok=True)
        (whole_folder / each).write_bytes(kept)
    whole = reader.read(whole_folder)
    for seed in range(cases):
        name, content = damage(reader, label, seed)
        case = folder / "case"
        verdict, why = judge(reader, whole, case, name, content)
        if any(path.is_file() and path.relative_to(case).as_posix() not in reader.files for path in case.rglob("*")):
            shutil.rmtree(case)
        counts[verdict] += 1
        if verdict in ("crash", "silent"):
            wrong.append(f"{label}, case {seed}, {name}: {verdict}: {why}")
    print(f"{label} | {cases} | " + " | ".join(map(str, counts.values())))
    return wrong
