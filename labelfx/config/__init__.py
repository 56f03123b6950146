"""Configurations: what they may hold, whether one can run, and the functions that its parts name.

Every dict with a `name` is a *part*: the name picks a function, whose keyword-only parameters are the keys the part
takes. An error is one line: the dotted path, what was found, what is allowed, the nearest valid name.

| file | what |
|---|---|
| `schema.py` | the fields of a run, and what a part may name |
| `annotations.py` | what a value may be |
| `checks.py` | the whole configuration against the signatures of the builders, before any data is touched |
| `building.py` | checked parts become functions |
| `identity.py` | whether two runs are the same |
| `recipes.py` | recipes by name or file, with values replaced |
| `rooms.py`, `errors.py` | where the functions are that a configuration names; whose mistake it is, in one line |
| `command.py`, `listing.py` | what commands share; what there is to choose from |
| `files.py` | the small files of a workdir |

Nothing here knows a method, an objective or a source by name.
"""

# ruff: noqa: F401 (what the other rooms use)

from labelfx.config.building import augmentations, build, one_line
from labelfx.config.checks import check, check_part, describe, phases
from labelfx.config.errors import ConfigError
from labelfx.config.files import (
    DERIVATION,
    OUTSIDE,
    absolute,
    below,
    cache_folder,
    derivation,
    local,
    make_folder,
    on_this_machine,
    place,
    read_json,
    replacing,
    write_text,
)
from labelfx.config.identity import changed_code, compare, config_hash, outside_code, what_matters
from labelfx.config.recipes import Written, literal, locate, recipe, recipes, recipes_of, settings
from labelfx.config.rooms import functions, hashes, parameters
from labelfx.config.schema import (
    BACKBONES,
    CLASSIFIERS,
    CONDENSED,
    DATA,
    DERIVED,
    EVALS,
    LABELS,
    METHODS,
    MINERS,
    NEUTRAL,
    OPTIMIZERS,
    PROVIDED,
    QUERIES,
    TRAINED,
    WEAK,
    Run,
    flatten,
    function,
    guess,
    names,
    nearest,
    places,
    plain,
)
