"""SimCLR (Chen et al. 2020): ResNet-50 on ImageNet, batch 4096, 1000 epochs; 69.3 % by linear evaluation (table 6).

    python -m labelfx.train --config=configs/papers/simclr_imagenet.py --workdir=DIR --config.data.name=folder:PATH

PATH has train/CLASS/ and, with the validation images, test/CLASS/. What it takes of a TPU slice is in
experiments/plans/README.md. The published number is that of the eval `linear_evaluation`, whose values are those of the
authors' code, google-research/simclr (its README's command). The published run decays all weights but those of
BatchNorm and biases, as here, and crops from the full image, where here the central square has been resized to 224
pixels before: of a picture of 500x375 that is three quarters, and the smallest crop has 63 pixels a side, there 122.
What it costs is not measured; we expect a few points.
Its crops are TensorFlow's, of 0.40 of the image on average, resized bicubically; here torchvision's, 0.48, bilinearly.
Its projection ends in a BatchNorm without bias, here in a bias; the last scale of its residual blocks starts at 0, here
at 1; the order of its colour jitter is drawn, here fixed.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="simclr_imagenet",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="folder:imagenet", image_size=224, channels=3),
            labels=dict(name="all_labels"),
            model=dict(name="resnet50", stem="imagenet", width=64, remat=False, dtype="bfloat16"),
            method=dict(
                name="contrastive",
                augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=1.0, grayscale=0.2, blur=0.5),
                projector=dict(name="projector", hidden=(2048,), features=128, batch_norm=True, dtype="bfloat16"),
                objective=dict(name="nt_xent", temperature=0.1),
            ),
            optimizer=dict(
                name="lars",
                learning_rate=4.8,
                momentum=0.9,
                weight_decay=1e-6,
                schedule=dict(name="cosine", warmup_steps=3_128),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=4096),
            batches=dict(name="uniform"),
            steps=312_785,
            evals=dict(
                linear_evaluation=dict(
                    optimizer=dict(
                        name="sgd",
                        learning_rate=1.6,
                        momentum=0.9,
                        weight_decay=1e-6,
                        schedule=dict(name="cosine", warmup_steps=0),
                        clip_norm=None,
                        accumulate=1,
                    ),
                    epochs=90,
                    batch=4096,
                    initial_scale=0.0,
                    augment=dict(
                        name="simclr", min_scale=0.08, flip=True, jitter_strength=0.0, grayscale=0.0, blur=0.0
                    ),
                ),
                linear_probe={},
                knn=dict(k=20, temperature=0.1),
            ),
        )
    )
