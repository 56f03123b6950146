"""Meta Pseudo Labels (Pham et al. 2021) on the handwritten digits, 4 labels a class.

    python -m labelfx.train --config=meta_pseudo_labels --workdir=/tmp/labelfx/meta_pseudo_labels

About 40 s on two CPU cores. 0.927; raw pixels 0.793, random encoder 0.720. The control without the term is `mpl_weight`
0. Seed 0, one label draw: a sign that it works, not a result.

As in the paper the student, which has learnt from pseudo-labels alone, is fine-tuned on the labels at the end;
experiments/README.md has what that gains, and `--config.phases="()"` leaves it out.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    sgd = dict(
        name="sgd",
        learning_rate=0.02,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=dict(name="cosine", warmup_steps=20),
        clip_norm=None,
        accumulate=1,
    )
    weak = dict(name="crop_flip", padding=1, flip=False)
    finetune = dict(
        method=dict(
            name="finetune", augment=weak, objective=dict(name="cross_entropy", label_smoothing=0.0), head="kept"
        ),
        optimizer=dict(
            name="adamw",
            learning_rate=1e-4,
            b1=0.9,
            b2=0.999,
            weight_decay=1e-4,
            schedule=dict(name="cosine", warmup_steps=20),
            clip_norm=None,
            accumulate=1,
        ),
        batch=dict(labelled=64, unlabelled=0),
        backbone="previous",
    )
    return ConfigDict(
        dict(
            name="meta_pseudo_labels",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=4),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="meta_pseudo_labels",
                weak=weak,
                strong=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                teacher_optimizer=sgd,
                pseudo_label="hard_sampled",
                feedback="difference",
                feedback_forward="frozen",
                baseline_decay=0.99,
                label_smoothing=0.1,
                mpl_weight=1.0,
                uda_weight=1.0,
                uda_ramp=100,
                uda_temperature=0.7,
                uda_threshold=0.6,
                student_wait=0,
                ema=0.99,
            ),
            optimizer=sgd,
            batch=dict(labelled=32, unlabelled=128),
            batches=dict(name="uniform"),
            steps=400,
            phases=({}, finetune),
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
