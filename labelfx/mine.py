"""Hard negatives of queries, from two files of embeddings:

    python -m labelfx.mine --queries=Q.npy --index=N.npy --positives=P.npy --out=FILE.npz --similarity=cosine \\
        --candidates=200 --count=8 --rule=simans --a=0.5 --b=0 --seed=0

Embeddings are float [Q, D] and [N, D]. Positives are int [Q] or [Q, P], rows of the index: scores are compared with
that of a query's first, and none of them becomes its negative (-1: there is no other). Where queries are rows of the
index, each one's own belongs among its positives.

Of the `candidates` most similar rows, positives among them, a rule of `labelfx.mining.rules` picks `count` negatives;
its parameters are flags too, and `seed` is that of its draws. The file holds `indices` (int32 [Q, count], rows of the
index, -1 where the rule leaves fewer), `scores` (float32 [Q, count], -inf there) and `positive_scores` (float32 [Q]).
"""

import typing
from typing import Any

from absl import flags as absl_flags

from labelfx.config import ConfigError, command, parameters
from labelfx.mining.files import RULES, mine


def main() -> None:
    strings = {
        "queries": "a .npy file, float [Q, D]",
        "index": "a .npy file, float [N, D]",
        "positives": "a .npy file, int [Q] or [Q, P], rows of the index",
        "out": "the .npz file to write",
        "similarity": "cosine or inner",
        "candidates": "how many of the most similar rows the rule picks from",
        "count": "negatives for each query",
        "rule": "one of " + ", ".join(RULES),
        "seed": "of the draws of rules that draw",
    }
    takes = {name: parameter for rule in RULES.values() for name, parameter in parameters(rule)[1].items()}
    for name, parameter in takes.items():
        whole = int in typing.get_args(parameter.annotation)
        define = absl_flags.DEFINE_integer if whole else absl_flags.DEFINE_float
        define(name, None, "a parameter of some rules")

    def start(flags: Any) -> None:
        given = {name: flags[name].value for name in strings}
        for name in ("candidates", "count", "seed"):
            if not given[name].isdecimal():
                raise ConfigError(f"--{name}={given[name]}: must be an integer >= {int(name != 'seed')}")
            given[name] = int(given[name])
        given |= {name: flags[name].value for name in takes if flags[name].value is not None}
        mine(**given)

    command.run(start, config=False, strings=strings)


if __name__ == "__main__":
    main()
