"""What other people's files rely on keeps working: commands, names in configurations, and what is imported today.

The lists are those of README.md, colabs/, configs/ and experiments/ on the day before the package was cut into rooms.
A name may be added; one that goes breaks somebody's script, notebook or configuration.
"""

import importlib.util
import pkgutil

import pytest

from labelfx import config as configs
from labelfx import list as listing

COMMANDS = (
    "benchmark compare derive evaluate export features fit list mine plan predict report scores suggest table train"
)
COMMANDS = [*COMMANDS.split(), "condense", "reinforce", "vote"]

NAMES = {
    "methods": "consistency contrastive contrastive_regression dclr dino distillation dual_encoder "
    "dual_view feature_transform federated finetune inter_clr label_augmentation meta_pseudo_labels metric_learning "
    "moco mutual_learning pnda self_meta_pseudo_labels siamese supervised supervised_contrastive swav "
    "test_time_adaptation whitening",
    "objectives": "barlow_twins byol class_aware_info_nce conr cross_entropy cross_modal dclr debiased "
    "debiased_negative_mean dino diversity dual_view fixmatch hard_negative identity_matching info_nce_queue "
    "inter_image kd moco_v3 multi_similarity neighbour_vote nt_xent proxy_anchor proxy_nca "
    "similarity_distribution_matching sinkhorn sup_con sup_con_mask swapped_prediction uda vicreg w_mse",
    "pseudo-labels": "fixmatch flexmatch freematch softmatch uda",
    "data sources": "arrays banking77 breast_cancer cifar10 cifar10h cifar10n clinc150 cranfield csv diabetes digits "
    "digits_corrupted fashion_mnist folder goemotions jsonl mnist multilabel musk1 npz parquet pasted planetoid sick "
    "sts tfds wrench",
    "label views": "all_labels classes every file first fixmatch_fold fraction indices long_tail none per_class "
    "queried uniform",
    "what is said": "annotators asymmetric bags clients column complementary domains drift incomplete "
    "instance_dependent keep_entries noisy_rest partial plausible points poisoned positive_unlabelled positives_only "
    "proportions single_positive symmetric transition",
    "classifiers": "anchored attention class_activation cosine dense label_attention linear set_decoder",
    "relabelling rules": "asymmetric dividemix early_learning given large_loss loss_gate noise_model observer "
    "percentile propensity_em proportion_bp reflective votes",
    "queries": "badge clue dropquery entropy k_centre margin probcover typiclust uniform",
    "augmentations": "crop_flip identity noise randaugment simclr simclr_resized small_grey",
    "pairs": "halves stacked",
    "transformations": "colour_permutations rotations",
    "batch miners": "by_client clusters communities curriculum mined ngame uniform whole_bags",
    "selections": "margin_pos perc_pos percentile runner_up second_cluster simans top",
    "models": "conv3 gcn mean_pool mlp resnet18 resnet50 transformer vit wrn28",
    "heads": "linear projector prototypes siamese_mlp",
    "derivations": "dampen factorise interpolate least_squares match position prune",
    "optimisers": "adam adamw by_path frozen keep_zeros larc lars layer_decay sgd",
    "schedules": "constant cosine fixmatch_cosine step_decay",
    "evals": "aggregated feature_propagation head knn linear_evaluation linear_probe random_encoder rankme raw_pixels "
    "recall_at_k regression_error retrieval score_distribution spearman tfidf tfidf_multilabel tfidf_probe uniformity "
    "untrained",
}

RECIPES = (
    "barlow_twins byol cluster_negatives communities contrastive_regression cranfield curriculum_labeling "
    "curriculum_negatives dclr debiased dino distillation dual_encoder dual_view fashion_mnist feature_transform "
    "finetune fixmatch hard_negative inter_clr meta_pseudo_labels metric_learning mined_negatives moco moco_v3 "
    "multimodal_hard_negative multimodal_matching mutual_learning own_images pnda proxy_anchor self_meta_pseudo_labels "
    "simclr simcse simsiam supervised supervised_contrastive swav test_time_adaptation uda vicreg whitening "
    "papers/barlow_twins_cifar10_resnet18 papers/byol_cifar10_resnet18 papers/debiased_cifar10 "
    "papers/debiased_cifar10_resnet18 papers/debiased_stl10 papers/dino_cifar10_resnet18 papers/distillation_imagenet "
    "papers/fixmatch_cifar10 papers/fixmatch_svhn papers/hard_negative_cifar10 papers/hard_negative_cifar10_resnet18 "
    "papers/hard_negative_stl10 papers/meta_pseudo_labels_cifar10 papers/meta_pseudo_labels_imagenet "
    "papers/meta_pseudo_labels_svhn papers/moco_cifar10_resnet18 papers/moco_v2_imagenet papers/simclr_cifar10 "
    "papers/simclr_cifar10_resnet18 papers/simclr_imagenet papers/simclr_stl10 papers/swav_cifar10_resnet18 "
    "papers/uda_cifar10 papers/vicreg_cifar10_resnet18 papers/whitening_cifar10_resnet18"
).split()

# Whatever is imported from the package or read off something that is, without the package's name.
IMPORTED = """
    ConfigError evaluate load recipe train __version__
    benchmark.BASELINE benchmark.DEFAULTS benchmark.benchmark checkpoint.Checkpoints command.run config.check
    config.plain config.write_text data.Dataset data.Split data.augment.Augmentation data.augment.noise
    data.batches.batches data.batches.draw data.batches.label_view data.miners.Miner data.miners.clusters
    data.miners.communities data.miners.curriculum data.miners.mined data.miners.ngame data.miners.uniform
    data.sources.digits data.sources.folder mesh.make_mesh mesh.on_every_device mesh.split_rows methods.Method
    methods.__path__ methods.meta_pseudo_labels.meta_pseudo_labels metrics.NEVER mining.rules.Found
    mining.rules.perc_pos mining.rules.top mining.search.top_k models.Model models.backbones.mlp models.heads.linear
    models.stack objectives.classification.cross_entropy objectives.contrastive.debiased_log_sum
    objectives.contrastive.diagnostics objectives.contrastive.hard_negative objectives.contrastive.log_weighted_mean
    objectives.contrastive.normalise objectives.contrastive.nt_xent objectives.contrastive.positive_cross_entropy
    objectives.ring.ring results.commit run.build_model run.keep_compiled_programs run.load_data state.create
    state.descend sweep.Job sweep.work_off table.Row table.differences table.half_width table.read table.table
    train.IN_FLIGHT train.Loop train.jit_step types.Augment types.NonNegative weights.load
""".split()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_there(name):
    spec = importlib.util.find_spec(f"labelfx.{name}")
    assert spec
    assert not spec.submodule_search_locations or importlib.util.find_spec(f"labelfx.{name}.__main__")


@pytest.mark.parametrize("section", NAMES)
def test_what_a_configuration_names_is_there(section):
    assert set(NAMES[section].split()) <= set(configs.names(listing.SECTIONS[section]))


def test_every_recipe_is_there():
    for name in RECIPES:
        configs.locate(name)


@pytest.mark.parametrize("name", IMPORTED)
def test_an_import_is_there(name):
    pkgutil.resolve_name(f"labelfx.{name}")
