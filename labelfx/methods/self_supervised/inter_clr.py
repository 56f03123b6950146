"""InterCLR: MoCo that also contrasts images with others of their cluster (Xie et al. 2022, IJCV, and their code)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fraction, Head, Positive, PositiveInt, Probability
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.self_supervised.moco import MocoState, momentum_contrast
from labelfx.models import Model
from labelfx.objectives.contrastive import cosine, info_nce_queue, normalise
from labelfx.objectives.memory import inter_image

PARTITION_STEPS = 10


class InterClrState(NamedTuple):
    """MoCo's state; of every image its key (`bank`, float32 [N, D]) and pseudo-label (int32 [N], -1: not met yet); the
    centroids, float32 [clusters, D]."""

    moco: MocoState
    bank: jax.Array
    label: jax.Array
    centroids: jax.Array


def inter_clr(
    model: Model,
    tx: optax.GradientTransformation,
    num_examples: int,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    momentum: Fraction,
    queue_size: PositiveInt,
    bank_momentum: Fraction,
    clusters: PositiveInt,
    min_cluster: PositiveInt,
    pool: PositiveInt,
    negatives: PositiveInt,
    margin: float,
    inter_weight: Probability,
) -> Method:
    """A step of `moco` on (1 - inter_weight) InfoNCE + inter_weight `labelfx.objectives.memory.inter_image`.

    The positive of an image is a row of the bank drawn from its pseudo-label, its negatives are `negatives` rows drawn
    from the `pool` nearest ones of other labels. Then its own row becomes bank_momentum row + (1 - bank_momentum) key
    and takes the label of the nearest centroid, and the centroids become the means of their rows. Published for
    ImageNet: 10,000 clusters of at least 20 rows, a pool of a tenth of the images, 16,384 negatives, margin -0.5,
    inter_weight 0.25, and rows that are replaced (bank_momentum 0).

    In the code the pool is of the nearest rows whatever their label, and rows of the own label are drawn again. As in
    the code, a cluster of fewer than `min_cluster` rows gives them to the others and gets half of the largest
    cluster. Otherwise than there: that is one cluster a step; the centroids move at every step, not every tenth; ranks
    in the pool are drawn once for all images of a batch; and the bank starts empty, where the code starts from k-means
    over the features of the untrained network. An image that is met for the first time takes the label of its key.

    Metrics: those of `moco`, `intra_loss`, `inter_loss`, `label_change` (share of the batch's rows whose pseudo-label
    changed, first ones included), `largest_cluster` (share of the rows met), `empty_clusters` (share of the clusters)
    and `pseudo_label_accuracy` (of the batch's pairs of one pseudo-label, the share of one true class; 0 where there is
    no such pair with known classes).

    Raises:
      ValueError: `queue_size` is not a multiple of the unlabelled batch, `pool` is more than the images, or `negatives`
        more than `pool`.
    """
    if not negatives <= pool <= num_examples:
        raise ValueError(f"negatives = {negatives}, pool = {pool}: must rise, up to the {num_examples} images")
    init_moco, advance = momentum_contrast(
        model, tx, augment=augment, projector=projector, momentum=momentum, queue_size=queue_size
    )

    def init(rng, batch):
        moco = init_moco(rng, batch)
        width = moco.queue.shape[1]
        centroids = normalise(jax.random.normal(state.fold_in_name(rng, "centroids"), (clusters, width)))
        return InterClrState(moco, jnp.zeros((num_examples, width)), jnp.full(num_examples, -1, jnp.int32), centroids)

    def step(old, batch, rng):
        rng_positive, rng_ranks = state.named(rng, "positive", "ranks")
        index = batch["unlabelled"]["index"]
        ranks = jax.random.permutation(rng_ranks, pool)[:negatives]

        def loss_fn(query, key, queue):
            label = jnp.where(old.label[index] < 0, nearest(normalise(key), old.centroids), old.label[index])
            positive = draw(rng_positive, label, old.label)
            intra = info_nce_queue(query, key, queue, temperature=temperature)
            inter = inter_image(
                query, label, positive, old.bank, old.label, ranks, temperature=temperature, margin=margin, pool=pool
            )
            loss = (1 - inter_weight) * intra + inter_weight * inter
            return loss, {"intra_loss": intra, "inter_loss": inter}

        moco, key, metrics = advance(old.moco, batch, rng, loss_fn)
        # A batch may hold a row twice, if it is larger than the pool: both then write the same, whatever the order.
        rows = jnp.arange(len(index), dtype=index.dtype)
        key = key[jnp.zeros_like(old.label).at[index].max(rows)[index]]
        keep = jnp.where(old.label[index] < 0, 0, bank_momentum).astype(key.dtype)[:, None]
        key = normalise(keep * old.bank[index] + (1 - keep) * key)
        bank = old.bank.at[index].set(key)
        label = old.label.at[index].set(nearest(key, old.centroids))
        changed = label[index] != old.label[index]
        label = redirect(bank, label, old.centroids, min_cluster)
        centroids, count = means(bank, label, old.centroids)
        metrics |= {
            "label_change": jnp.mean(changed),
            "largest_cluster": jnp.max(count) / jnp.sum(count),
            "empty_clusters": jnp.mean(count == 0),
            "pseudo_label_accuracy": pair_accuracy(label[index], batch["audit"]["unlabelled"]["label"]),
        }
        return InterClrState(moco, bank, label, centroids), metrics

    return Method(init, step, lambda state: state.moco.query.variables)


def nearest(key, centroids):
    """The cluster of each key [B, D]: the largest product with a centroid, int32 [B]."""
    return jnp.argmax(cosine(key, centroids), -1).astype(jnp.int32)


def draw(rng, label, bank_label):
    """For each label [B] a row of the bank [N] that has it, each with the same probability; any row if none has it."""
    order = jnp.argsort(bank_label)
    ordered = bank_label[order]
    first, last = (jnp.searchsorted(ordered, label, side=side) for side in ("left", "right"))
    return order[jnp.minimum(jax.random.randint(rng, label.shape, first, last), len(order) - 1)]


def means(bank, label, centroids):
    """The mean of each cluster's rows, its old centroid where it has none, and the number of its rows."""
    met = (label >= 0).astype(bank.dtype)  # label -1 is the last cluster's to the scatter
    count = jnp.zeros(len(centroids), bank.dtype).at[label].add(met)
    total = jnp.zeros_like(centroids).at[label].add(bank * met[:, None])
    return jnp.where(count[:, None] > 0, total / jnp.maximum(count, 1)[:, None], centroids), count


def redirect(bank, label, centroids, min_cluster):
    """Labels after the smallest cluster, if it has fewer than `min_cluster` rows, has given them to the nearest others
    and taken one part of the largest cluster, split by 2-means. Nothing changes if that has too few for two."""
    _, count = means(bank, label, centroids)
    small, large = jnp.argmin(count), jnp.argmax(count)
    needed = (count[small] < min_cluster) & (count[large] >= 2 * min_cluster)
    rows = jnp.nonzero(label == small, size=min_cluster, fill_value=len(label))[0]
    scores = cosine(bank.at[rows].get(mode="fill", fill_value=0), centroids)
    elsewhere = jnp.argmax(jnp.where(jnp.arange(len(centroids)) == small, -jnp.inf, scores), -1).astype(label.dtype)
    given = label.at[rows].set(elsewhere, mode="drop")

    of_large = label == large
    one = centroids[large]
    other = bank[jnp.argmin(jnp.where(of_large, cosine(one, bank), jnp.inf))]

    def partition(_, centres):
        side = nearest(bank, normalise(centres))
        return jnp.stack([jnp.sum(bank, 0, where=(of_large & (side == i))[:, None]) for i in range(2)])

    centres = jax.lax.fori_loop(0, PARTITION_STEPS, partition, jnp.stack([one, other]))
    moves = of_large & (nearest(bank, normalise(centres)) == 1)
    return jnp.where(needed, jnp.where(moves, small.astype(label.dtype), given), label)


def pair_accuracy(label, truth):
    """Of the pairs of different rows with one label [B] and known classes, the share of one class (`truth` [B])."""
    pairs = (label[:, None] == label[None]) & (truth >= 0)[:, None] & (truth >= 0)[None]
    pairs &= ~jnp.eye(len(label), dtype=bool)
    return jnp.sum(pairs & (truth[:, None] == truth[None])) / jnp.maximum(jnp.sum(pairs), 1)
