"""Learning from label proportions by belief propagation (LLP-BP; "Learning from Label Proportions: Bootstrapping
Supervised Learners via Belief Propagation"): which tumours are malignant, from how many are in each bag of eight.

    python -m labelfx.train --config=label_proportions --workdir=/tmp/labelfx/label_proportions

A minute on two CPU cores. Accuracy 0.972 (0.000) over three seeds; the proportion loss alone, in the `supervised` step
of one phase on eight whole bags a batch, 0.969 (0.008), so nothing is won. The weights were chosen on the training rows
by the accuracy of the marginals, so with labels that a user has not; with weaker bags against stronger likeness, or
bags of 32, the first marginals are worse.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    rule = dict(name="proportion_bp", neighbours=5, bag_weight=10.0, similarity_weight=1.0, steps=100, damping=0.5)
    method = dict(
        name="relabelling",
        augment=dict(name="identity"),
        objective=dict(name="soft_cross_entropy"),
        rule=dict(rule, covariates="inputs"),
    )
    return ConfigDict(
        dict(
            name="label_proportions",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="breast_cancer"),
            labels=dict(name="all_labels", weak=dict(name="proportions", bag_size=8)),
            model=dict(name="mlp", hidden=(64,), dtype="float32"),
            method=method,
            optimizer=dict(
                name="adamw",
                learning_rate=1e-3,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=20),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=64),
            batches=dict(name="uniform"),
            steps=200,
            phases=(dict(), dict(method=dict(method, rule=dict(rule, covariates="features")))),
            evals=dict(head={}),
        )
    )
