"""`labelfx.derived.position`: its arithmetic by loops, and tasks that a uniform average is unfair to."""

import jax.numpy as jnp
import numpy as np
import pytest

from labelfx.derived.position import combined, search


def test_the_combination_by_loops():
    rng = np.random.default_rng(0)
    base, *experts = (
        {"w": rng.normal(size=(2, 3)).astype("f4"), "b": {"c": rng.normal(size=3).astype("f4")}} for _ in range(4)
    )
    found = combined(base, experts, 0.7, [0.2, 0.5, 0.3])
    for get in (lambda tree: tree["w"], lambda tree: tree["b"]["c"]):
        wanted = get(base).copy()
        for place in np.ndindex(wanted.shape):
            for share, tree in zip([0.2, 0.5, 0.3], experts, strict=True):
                wanted[place] += 0.7 * share * (get(tree)[place] - get(base)[place])
        np.testing.assert_allclose(get(found), wanted, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_an_optimum_in_the_span_is_found(seed):
    rng = np.random.default_rng(seed)
    base, *experts = rng.normal(size=(4, 12)).astype(np.float32)
    shares, scale = rng.dirichlet([3.0] * 3), rng.uniform(0.5, 1.5)
    goal = np.asarray(combined(base, experts, scale, shares))
    found = search(lambda theta, batch: jnp.mean((theta - batch) ** 2), base, experts, [goal] * 3000, rate=0.3)
    assert abs(found[0] - scale) < 1e-3 and np.abs(np.array(found[1]) - shares).max() < 1e-3
    assert len(found[2]) == 3000 and found[2][-1] < 1e-6 < found[2][0]


def test_one_task_is_scaled_alone():
    scale, shares, _ = search(
        lambda t, _: jnp.sum((t - 0.5) ** 2), np.zeros(3, np.float32), [np.ones(3)], [0] * 100, rate=0.1
    )
    assert shares == [1.0] and scale == pytest.approx(0.5, abs=1e-4)


def test_a_small_task_is_not_outvoted():
    """Two regressions that disagree, of 1,000 and 100 rows, and one network for both. Fitting all rows together answers
    to the large one. Halfway between the two, the small one, whose inputs are the larger, has the greater loss. As many
    rows of each say where to stand, and its loss falls below either's, over five seeds."""
    worst = {"joint": [], "uniform": [], "position": []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth, spread, rows = rng.normal(size=(2, 8)), (1.0, 2.0), (1000, 100)
        x = [scale * rng.normal(size=(n, 8)) for scale, n in zip(spread, rows, strict=True)]
        y = [each @ own for each, own in zip(x, truth, strict=True)]
        joint = np.linalg.lstsq(np.concatenate(x), np.concatenate(y))[0]
        experts = [np.linalg.lstsq(*pair)[0].astype(np.float32) for pair in zip(x, y, strict=True)]

        def small(theta, x=x, y=y):
            return np.mean((x[1] @ np.asarray(theta) - y[1]) ** 2)

        probe = np.concatenate([each[:50] for each in x]).astype(np.float32)
        said = np.concatenate([each[:50] for each in y]).astype(np.float32)
        base = np.zeros(8, np.float32)
        scale, shares, _ = search(
            lambda theta, batch: jnp.mean((batch[0] @ theta - batch[1]) ** 2),
            base,
            experts,
            [(probe, said)] * 300,
            rate=0.02,
        )
        assert shares[1] > 0.6
        for name, theta in (
            ("joint", joint),
            ("uniform", combined(base, experts, 1.0, [0.5, 0.5])),
            ("position", combined(base, experts, scale, shares)),
        ):
            worst[name].append(small(theta))
    print({name: np.mean(each) for name, each in worst.items()})
    assert (np.array(worst["position"]) < 0.5 * np.array(worst["uniform"])).all()
    assert (np.array(worst["position"]) < 0.5 * np.array(worst["joint"])).all()
