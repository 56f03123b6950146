"""Functions of finished runs' variables: networks that are merged, pruned or made to forget, without a training loop.

`python -m labelfx.derive HOW` runs one: HOW is a function of a module here. Its positional parameters are provided by
name, `runs` (a tuple of `Finished`, in the order of the command) and `rng` (a NumPy generator by the seed of the first
one's configuration); its keyword-only parameters are the schema of the settings. It returns `Derived`, whose BatchNorm
statistics the command takes anew (`recalibrate`): those of the parents are not those of a network that is neither. What
works on variables alone, nested dicts of arrays, stands beside it as pure functions.
"""

# ruff: noqa: F401 (what functions of this room are made of)

from labelfx.derived._runs import (
    Derived,
    Finished,
    check_alike,
    check_classifiers,
    check_mergeable,
    count_runs,
    logits,
    recalibrate,
)
