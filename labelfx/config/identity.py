"""Whether two runs are the same: hashes of configurations, and of the code outside of labelfx that they use."""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labelfx.config.annotations import Part
from labelfx.config.checks import check, find, rule_of
from labelfx.config.errors import ConfigError
from labelfx.config.files import derivation, place, read_json, recorded
from labelfx.config.rooms import hashes, outside_files, parameters, used_files
from labelfx.config.schema import EVALS, NEUTRAL, TRAINED, Run, flatten, function, places, plain


def outside_code(config: Run) -> dict[str, str]:
    """The files outside of labelfx that a checked configuration takes code from: a name such as `methods/mixup.py` ->
    sha256."""
    every = [dataclasses.asdict(config), *config.phases]
    used = [each for fields in every for each in _builders(parameters(Run)[1], fields)]
    return hashes(used_files(used + [function(EVALS, name) for name in config.evals]))


def _builders(takes: Mapping[str, inspect.Parameter], node: Mapping[str, Any]) -> Iterator[Callable]:
    """The functions that the parts of a checked node pick, and those of parts within."""
    for key, value in node.items():
        rule = rule_of(takes.get(key))
        for part in (value if isinstance(value, tuple) else (value,)) if isinstance(rule, Part) and value else ():
            builder = find(rule, part["name"], key)[0]
            yield builder
            yield from _builders(parameters(builder)[1] | (parameters(rule.common)[1] if rule.common else {}), part)


def what_matters(config: Any) -> dict[str, Any]:
    """Dotted path -> value for everything that can change a result."""
    fields = flatten(plain(config))
    neutral = {*NEUTRAL} - ({"config.eval_every"} if fields.get("config.keep_best") else set())
    return {path: value for path, value in fields.items() if re.sub(r"phases\[\d+\]\.", "", path) not in neutral}


def config_hash(config: Any, workdir: Path | None = None) -> str:
    """Twelve hex digits that the runs of one row of a table share: seeds and labels are left out of `what_matters`, and
    a backbone or a teacher counts by the hash of the run that it comes from. Weights that were derived count by how,
    and of what."""
    kept: dict[str, Any] = {}
    if made := derivation(workdir) if workdir else {}:
        kept["derived"] = [made["how"], made["settings"], [parent["config_hash"] for parent in made["parents"]]]
    for path, value in what_matters(config).items():
        if path in ("config.seed", "config.label_seed", "config.data_seed") or path.startswith("config.labels."):
            continue
        if path.rpartition(".")[2] in TRAINED:
            every = [
                each if each == "previous" else config_hash(read_json(place(each) / "config.json"), place(each))
                for each in places(value)
            ]
            value = every if len(every) > 1 else "".join(every)
        kept[path] = value
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def compare(config: Any, workdir: Path) -> None:
    """Compares with the configuration that a workdir holds, if it holds one.

    Raises:
      ConfigError: it is another; the differing paths are named. Or its code outside of labelfx is.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    old: Any = read_json(path)
    with contextlib.suppress(ConfigError):
        old = check(old)  # fills in what it did not say, such as a field that is newer
    old, new = (what_matters(json.loads(json.dumps(plain(each)))) for each in (old, config))
    differing = sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))
    if differing:
        shown = ", ".join(f"{p} ({old.get(p)!r} there, {new.get(p)!r} now)" for p in differing)
        raise ConfigError(f"{workdir} holds a run of another configuration: {shown}; use another workdir")
    if code := _differing(recorded(workdir), outside_code(config)):
        raise ConfigError(f"{workdir} holds a run of other code: {code}; bring it back or use another workdir")


def changed_code(workdir: Path) -> str:
    """The code outside of labelfx that a run was made with and that is another now; empty where there is none."""
    if not (then := recorded(workdir)):
        return ""
    now = hashes(outside_files())
    return _differing(then, {name: now.get(name, "") for name in then})


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    short = {name: [each.get(name, "")[:12] or "none" for each in (then, now)] for name in names}
    return ", ".join(f"{name} (sha256 {old} there, {new} now)" for name, (old, new) in short.items())
