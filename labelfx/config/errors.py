"""A mistake is one line: what was found, what is allowed and, where code is at fault, its file and line."""

import dis
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
LIBRARIES = sys.stdlib_module_names | {"absl", "chex", "flax", "jax", "jaxlib", "ml_collections", "numpy", "optax"}


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line for its author."""


def place(function: Callable[..., Any]) -> str:
    """FILE:LINE of a function's definition."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)


def located(error: BaseException) -> str:
    """`FILE:LINE: message`, the line at fault being the innermost one outside of labelfx and its libraries or, where
    there is none, the innermost of labelfx. The message alone where labelfx raised the error for its user to read, but
    for an objective of what code outside of labelfx has given it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])  # JAX goes on after a colon
    if not (isinstance(error, TypeError | ValueError) and message):
        message = f"{type(error).__name__}: {message}".removesuffix(": ")
    entries = _entries(error)
    told = bool(entries) and _is_labelfx(entries[-1]) and _raises(entries[-1])
    given = told and _module(entries[-1]).startswith("labelfx.objectives")  # shapes, which are its caller's
    if not entries or (told and not (given and outside(error))):
        return message
    own = [entry for entry in entries if _is_labelfx(entry)]
    entry = outside(error) or (own or entries)[-1]
    return f"{entry.tb_frame.f_code.co_filename}:{entry.tb_lineno}: {message}"


def first_line(error: Exception) -> str:
    """What a library says of storage that failed, short enough to stand in a message of labelfx's own."""
    lines = re.sub(r" \[\w+=.*", "", str(error).strip()).splitlines()  # what TensorStore adds says nothing to a user
    if not lines:
        return type(error).__name__
    return lines[0] if len(lines[0]) <= 300 else f"{lines[0][:100]} ... {lines[0][-200:]}"  # the reason is at the end


def outside(error: BaseException) -> types.TracebackType | None:
    """The innermost line of the traceback that is neither of labelfx nor of a library."""
    found = [e for e in _entries(error) if not _is_labelfx(e) and _module(e).partition(".")[0] not in LIBRARIES]
    return found[-1] if found else None


def _entries(error: BaseException) -> list[types.TracebackType]:
    entry, found = error.__traceback__, []
    while entry:
        found.append(entry)
        entry = entry.tb_next
    return found


def _module(entry: types.TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__"))


def _is_labelfx(entry: types.TracebackType) -> bool:
    return Path(entry.tb_frame.f_code.co_filename).is_relative_to(PACKAGE)


def _raises(entry: types.TracebackType) -> bool:
    return entry.tb_frame.f_code.co_code[entry.tb_lasti] == dis.opmap["RAISE_VARARGS"]
