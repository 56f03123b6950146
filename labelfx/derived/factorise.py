"""Kernels of a lower rank: of a backbone what is the largest, or what all its classes use."""

from typing import Any, Literal

import jax
import numpy as np

from labelfx.config import ConfigError
from labelfx.config.annotations import PositiveInt
from labelfx.data import known
from labelfx.derived import Derived, Finished, check_classifiers, count_runs
from labelfx.derived.layers import CHUNK, Layers, centred, columns, layers_of, matrix, walk


def factorise(runs: tuple[Finished, ...], *, rank: PositiveInt, keep: Literal["largest", "shared"]) -> Derived:
    """Leaves `rank` singular components of every kernel of the backbone, `W = sum_r s_r u_r v_r'`, a convolution's as a
    matrix of its patches.

    Those of the largest values s_r are the nearest matrix of that rank (Eckart and Young 1936). Knowledge integration
    and diversion takes components apart instead into what all classes use, which is what transfers to others, and what
    a class has for itself ("KIND: Knowledge Integration and Diversion in Diffusion Models", 2024). The
    authors train components behind gates of the classes; here the network is finished, and a component counts as shared
    by what it says of the class that uses it least (`uses`). The head stays as it is. derived.json has of each layer
    the rank, the numbers that two factors hold and the share of |W|^2 that is lost.

    Args:
      runs: the one to factorise, an mlp or conv3.
      rank: how many components are kept; a kernel of no higher rank stays as it is.
      keep: "largest" or "shared", which reads the labelled rows.

    Raises:
      ConfigError: another backbone; "shared" of a run that trained no classifier or was told no label.
    """
    count_runs(runs, 1, 1, "the run to factorise")
    (run,) = runs
    layers, variables = layers_of(run.config.model), run.variables
    scores: list[np.ndarray | None] = [None] * (len(layers) - 1)
    if keep == "shared":
        check_classifiers(runs)
        inputs, labels = run.labelled
        if not known(labels).any():
            raise ConfigError(f"{run.place}: its label view says no label, by which components would be shared")
        found = uses(layers, variables, inputs[known(labels)], labels[known(labels)])
        scores = [each.min(0) for each in found]
    kernels, said = {}, []
    for (name, _), score in zip(layers, scores, strict=False):
        kernel = _kernel(variables, name)
        left = truncated(kernel, rank, score)
        kernels[f"{name}/kernel"] = left.reshape(matrix(variables, name)[1])
        lost = np.sum((kernel - left) ** 2) / max(np.sum(kernel**2), 1e-30)
        full = min(kernel.shape)
        said.append(
            {"layer": name, "rank": min(rank, full), "of": full, "numbers": min(rank, full) * sum(kernel.shape)}
        )
        said[-1] |= {"kernel": kernel.size, "lost": float(lost)}

    def new(path: Any, old: np.ndarray) -> np.ndarray:
        return np.asarray(kernels.get("/".join(key.key for key in path), old), old.dtype)

    return Derived(
        {**variables, "params": jax.tree_util.tree_map_with_path(new, variables["params"])}, said={"layers": said}
    )


def truncated(kernel: np.ndarray, rank: int, score: np.ndarray | None = None) -> np.ndarray:
    """A matrix of which `rank` singular components are left, those of the largest `score` [min(K, units)] or, without
    one, of the largest value; as it is where it has no more than these. float64 [K, units], in singular values'
    order."""
    if rank >= min(kernel.shape):
        return kernel
    u, s, v = np.linalg.svd(kernel, full_matrices=False)
    kept = np.argsort(-(s if score is None else score), kind="stable")[:rank]
    return (u[:, kept] * s[kept]) @ v[kept]


def uses(layers: Layers, variables: Any, inputs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Of each layer but the head's what its singular components say of each class: the mean of `(s_r u_r' x)^2` over
    the class's rows and positions, x what the layer takes of them, float64 [classes with rows, min(K, units)].

    Args:
      inputs: [L, ...] as in `Split.inputs`.
      labels: int [L], every one known.
    """
    maps = []
    for name, _ in layers[:-1]:
        u, s, _ = np.linalg.svd(_kernel(variables, name), full_matrices=False)
        maps.append(u * s)
    classes, places = np.unique(labels, return_inverse=True)
    of_class = np.eye(len(classes))[places]  # [L, classes]
    sums: list[Any] = [0.0] * len(maps)
    for start in range(0, len(inputs), CHUNK):
        rows = slice(start, start + CHUNK)
        for i, (taken, _) in enumerate(walk(layers[:-1], variables, centred(variables, inputs[rows]))):
            said = columns(taken, matrix(variables, layers[i][0])[1])[..., : len(maps[i])] @ maps[i]
            squares = np.mean(said**2, tuple(range(1, said.ndim - 1)))  # [n, components]
            sums[i] = sums[i] + of_class[rows].T @ squares
    return [each / of_class.sum(0)[:, None] for each in sums]


def _kernel(variables: Any, name: str) -> np.ndarray:
    """As float64 [K, units], without its bias."""
    weights, shape = matrix(variables, name)
    return weights[: int(np.prod(shape[:-1]))]
