"""Meta Pseudo Labels (Pham et al. 2021) on ImageNet with 10 % of the labels, ResNet-50.

    python -m labelfx.train --config=papers/meta_pseudo_labels_imagenet --workdir=DIR --config.data.name=folder:PATH

Published: 73.89 % after fine-tuning (the paper, as quoted in the README of kekmodel/MPL-pytorch). The first phase is
the second command in the README of the authors' code (google-research/google-research, meta_pseudo_labels), whose rates
of 0.1 and 0.15 are for 256 labelled images; its data set, image size and number of classes there are those of the
command for CIFAR-10, and are here ImageNet's. 700,000 steps of 1,024 labelled and 15,360 unlabelled images. Nothing is
released of the fine-tuning: the second phase has the values of papers/meta_pseudo_labels_cifar10.

PATH has train/CLASS/ and, with the validation images, test/CLASS/. Otherwise than in that code: pseudo-labels are drawn
and h is positive when the student has improved, as in the paper (labelfx/methods/meta_pseudo_labels.py); there is no
dropout, there of 0.1 on the features; the strong view is shifted by up to 28 pixels, there it is of the same crop as
the weak one, and the strengths of RandAugment are drawn, there fixed at 17 of 10; crops are from the central square,
resized to 224 pixels before (what it costs is not measured; we expect a few points: papers/simclr_imagenet); the
student's rate rises from step 0 to 25,000, not from 20,000, so that it starts at 4/5 of its peak; gradients are cut
without the weight decay; BatchNorm is over the whole batch, there over 1,024 images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    def sgd(learning_rate: float, warmup_steps: int) -> dict:
        return dict(
            name="sgd",
            learning_rate=learning_rate,
            momentum=0.9,
            weight_decay=1e-4,
            schedule=dict(name="cosine", warmup_steps=warmup_steps),
            clip_norm=5.0,
            accumulate=1,
        )

    weak = dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=0.0, grayscale=0.0, blur=0.0)
    finetune = dict(
        method=dict(
            name="finetune", augment=weak, objective=dict(name="cross_entropy", label_smoothing=0.0), head="kept"
        ),
        optimizer=dict(
            name="sgd",
            learning_rate=3e-5,
            momentum=0.9,
            weight_decay=0.0,
            schedule=dict(name="constant", warmup_steps=0),
            clip_norm=None,
            accumulate=1,
        ),
        batch=dict(labelled=512, unlabelled=0),
        steps=5_000,
        backbone="previous",
    )
    return ConfigDict(
        dict(
            name="meta_pseudo_labels_imagenet",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="folder:imagenet", image_size=224, channels=3),
            labels=dict(name="fraction", fraction=0.1, balanced=True),
            model=dict(name="resnet50", stem="imagenet", width=64, remat=False, dtype="bfloat16"),
            method=dict(
                name="meta_pseudo_labels",
                weak=weak,
                strong=dict(
                    name="randaugment",
                    padding=28,
                    flip=True,
                    operations=2,
                    magnitude=1.0,
                    probability=0.5,
                    cutout=0.0,
                ),
                teacher_optimizer=sgd(0.6, 5_000),
                pseudo_label="hard_sampled",
                feedback="difference",
                feedback_forward="redrawn",
                baseline_decay=0.99,
                label_smoothing=0.1,
                mpl_weight=1.0,
                uda_weight=20.0,
                uda_ramp=50_000,
                uda_temperature=0.5,
                uda_threshold=0.6,
                student_wait=20_000,
                ema=0.999,
            ),
            optimizer=sgd(0.4, 25_000),
            batch=dict(labelled=1024, unlabelled=15 * 1024),
            batches=dict(name="uniform"),
            steps=700_000,
            phases=({}, finetune),
            evals=dict(head={}),
        )
    )
