"""No function without a user: what no recipe, command or eval can come to is dead code with a docstring.

A recipe reaches what its parts name. Code outside of the rooms below, which commands run, reaches what it refers to;
so does, in turn, each function of a room that is reached. Tests and experiments reach nothing.
"""

import ast
import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import labelfx
from labelfx import config as configs
from labelfx.config.annotations import Part

ROOT = Path(labelfx.__file__).parent
ROOMS = [ROOT / room for room in ("objectives", "labels", "evals", "derived", "data/labels.py")]  # those that are there

DOORS = {  # for users' own code alone, and why
    "labelfx.objectives.ring.ring": "README, Devices: for steps of one's own whose rows no device could hold",
    "labelfx.objectives.contrastive.debiased_negative_mean": "the estimator as published; losses take its logarithm",
    "labelfx.objectives.pseudo_label.fixmatch": "the loss as published; `consistency` puts it together from its parts",
    "labelfx.objectives.metric_learning.proxy_nca": "a value of config.method.objective beside those of two recipes",
    "labelfx.objectives.metric_learning.symmetric_multi_similarity": "wants graded labels, which no source gives yet",
    "labelfx.objectives.metric_learning.utilization": "of test queries and a training set, as its paper reports it",
    "labelfx.objectives.supervision.forward": "a value of config.method.objective for noisy labels",
    "labelfx.objectives.supervision.unbiased": "likewise",
    "labelfx.objectives.doubtful.symmetric_cross_entropy": "likewise",
    "labelfx.objectives.doubtful.ldr": "likewise",
    "labelfx.objectives.supervision.proportion": "likewise, for bags with proportions",
    "labelfx.labels.rules.large_loss": "a value of config.method.rule for several labels",
    "labelfx.objectives.regression.absolute_error": "likewise, for targets",
    "labelfx.objectives.distillation.negative_kd": "a value of config.method.soft_objective, of a teacher of bad rows",
    "labelfx.evals.floors.pretrained": "a floor of `labelfx.benchmark --backbone`, which names it",
    "labelfx.evals.bags.bag_auc": "a value of config.evals for sources with bags of test rows",
    "labelfx.evals.graphs.feature_propagation": "a value of config.evals for any recipe with a classifier",
    "labelfx.evals.multilabel.multilabel_probe": "likewise",
    "labelfx.evals.label_free.vendi": "a value of config.evals for any recipe",
    "labelfx.evals.label_free.matrix_nuclear_norm": "likewise",
    "labelfx.evals.label_free.transfer_score": "likewise, with a linear classifier",
    "labelfx.evals.representation.alignment": "wants two views of each row, of which evals are given one",
    "labelfx.labels.choose.rank_mean": "rows to ask an annotator for, before a run; `experiments/label_free_nodes.py`",
    "labelfx.labels.choose.density": "likewise",
    "labelfx.labels.choose.pagerank": "likewise",
    "labelfx.labels.choose.diverse_filter": "likewise: which answers to keep",
    "labelfx.labels.noise.expected_squared_error": "of one's own pairs of a doubtful and a true label, before a run",
    "labelfx.labels.noise.plausible_labels": "of one's own doubtful labels, over several networks",
    "labelfx.labels.noise.ambiguity": "likewise",
    "labelfx.labels.noise.regret": "likewise",
    "labelfx.labels.label_space.relations": "of one's own labels, before a run",
    "labelfx.labels.label_space.close": "likewise",
    "labelfx.evals.classification.cross_val_pred_probs": "of one's own features, for `labelfx.labels.confident`",
    "labelfx.labels.confident.get_confident_thresholds": "of one's own labels and probabilities",
    "labelfx.labels.confident.compute_confident_joint": "likewise",
    "labelfx.labels.confident.estimate_latent": "likewise",
    "labelfx.labels.confident.find_label_issues": "likewise; `experiments/detection.py`",
    "labelfx.labels.confident.get_label_quality_scores": "likewise",
    "labelfx.labels.confident.find_multilabel_issues": "likewise",
    "labelfx.labels.confident.get_multilabel_quality_scores": "likewise",
    "labelfx.labels.votes.lf_summary": "of one's own labelling functions, before a run",
    "labelfx.data.labels.indices": "rows that somebody has chosen, which no recipe can know",
    "labelfx.data.labels.file": "likewise",
    "labelfx.data.labels.queried": "a value of config.labels, which the benchmark takes by --draw",
    "labelfx.labels.queries.next_batch": "of `labelfx.data.labels.queried`",
    "labelfx.labels.queries.uniform": "a value of config.ask and of --strategy: what any other query has to beat",
    "labelfx.labels.queries.entropy": "likewise",
    "labelfx.labels.queries.k_centre": "likewise",
    "labelfx.labels.queries.typiclust": "likewise",
    "labelfx.labels.queries.probcover": "likewise",
    "labelfx.labels.queries.badge": "likewise",
    "labelfx.labels.queries.dropquery": "likewise",
    "labelfx.labels.queries.clue": "likewise",
    "labelfx.data.labels.classes": "rows that no recipe names: classes that are met in the test alone",
    "labelfx.evals.sets.label_set_conformal": "a value of config.evals for several labels",
    "labelfx.evals.sets.hierarchy": "likewise, for classes of which a tree is known",
    "labelfx.evals.sets.first_thresholds": "of `labelfx.evals.sets.hierarchy`",
    "labelfx.evals.sets.frechet": "likewise, for classes that have distances",
    "labelfx.labels.metric.frechet_mean": "of `labelfx.evals.sets.frechet`",
    "labelfx.labels.metric.locus": "of distances of labels, before any are drawn: which classes can be predicted",
    "labelfx.labels.metric.next_class": "likewise: which to label next",
    "labelfx.labels.sets.hierarchical_set": "of `labelfx.evals.sets.hierarchy`",
    "labelfx.labels.sets.pac_threshold": "likewise",
    "labelfx.labels.sets.power_set": "of `labelfx.evals.sets.label_set_conformal`",
    "labelfx.objectives.imbalance.balanced_cross_entropy": "a value of config.method.objective for imbalanced labels",
}


def named(annotation: Any, value: Any) -> Iterator[Any]:
    """The functions that a value of a recipe names, by the annotation of its key."""
    rule = getattr(annotation, "__metadata__", (None,))[-1]
    if isinstance(rule, Part) and value is not None:
        function = configs.function(rule, value["name"].partition(":")[0])
        yield function
        keys = configs.parameters(function)[1] | (configs.parameters(rule.common)[1] if rule.common else {})
        for key in keys.keys() & value.keys():
            yield from named(keys[key].annotation, value[key])
    elif typing.get_origin(annotation) is tuple:
        for each in value:
            yield from named(typing.get_args(annotation)[0], each)
    elif rule is None:  # perhaps X | None
        for each in typing.get_args(annotation):
            yield from named(each, value)


def named_by_recipes() -> Iterator[Any]:
    fields = configs.parameters(configs.Run)[1]
    for path in (ROOT.parent / "configs").rglob("*.py"):
        recipe = configs.recipe(str(path))
        yield from (configs.function(configs.EVALS, name) for name in recipe["evals"])
        for part in (recipe, *recipe.get("phases", ())):
            for key, value in part.items():
                yield from named(fields[key].annotation, value)


def named_by_commands() -> Iterator[Any]:
    """HOW of `labelfx.derive`."""
    yield from (configs.function(configs.DERIVED, name) for name in configs.names(configs.DERIVED))


def name_of(value: Any) -> str | None:
    """Of a function or class of the package, also one that is wrapped, such as by `jax.jit`."""
    module = getattr(value, "__module__", None)
    own = isinstance(module, str) and module.startswith("labelfx.")
    return f"{module}.{value.__qualname__}" if own and hasattr(value, "__qualname__") else None


def imports(tree: ast.Module) -> dict[str, Any]:
    """What the file takes from the package, also inside of functions."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {
        alias.asname or alias.name: pkgutil.resolve_name(f"{node.module}.{alias.name}")
        for node in found
        if node.module and node.module.startswith("labelfx")
        for alias in node.names
    }


def referred(node: ast.stmt, names: dict[str, Any]) -> set[str]:
    """The package's functions and classes that a statement at module level refers to, at whatever depth."""
    within = list(ast.walk(node))
    bound = {each.arg for each in within if isinstance(each, ast.arg)}
    bound |= {each.id for each in within if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    found = set()
    for each in within:
        if not isinstance(each, ast.Name | ast.Attribute) or not re.fullmatch(r"[\w.]+", ast.unparse(each)):
            continue
        first, *rest = ast.unparse(each).split(".")
        value = None if first in bound else names.get(first)
        for attribute in rest:
            value = vars(value).get(attribute) if isinstance(value, types.ModuleType) else None
        found.add(name_of(value))
    return {name for name in found if name}


def test_every_public_function_of_a_room_is_reached():
    refers: dict[str, set[str]] = {}
    public, queue = set(), [name_of(function) for function in [*named_by_recipes(), *named_by_commands()]]
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        module = importlib.import_module(name.removesuffix(".__init__"))
        tree = ast.parse(path.read_text())
        names = vars(module) | imports(tree)
        for node in tree.body:
            defines = isinstance(node, ast.FunctionDef | ast.ClassDef)
            if defines and any(room in (path, *path.parents) for room in ROOMS):
                own = f"{module.__name__}.{node.name}"
                refers[own] = referred(node, names)
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    public.add(own)
            else:
                queue += referred(node, names)
    reached: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += refers.get(name, ())
    forgotten, gone = sorted(public - reached - DOORS.keys()), sorted(DOORS.keys() - (public - reached))
    assert not forgotten, f"no recipe, command or eval reaches {', '.join(forgotten)}"
    assert not gone, f"reached, or gone: {', '.join(gone)}"
