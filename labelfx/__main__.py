"""The commands: `python -m labelfx` lists them."""

COMMANDS = {
    "list": "what there is to choose from: recipes, methods, objectives, data, models, evals",
    "train": "trains a recipe, evaluates it, and resumes where it was stopped",
    "fit": "a classifier of your own images or sentences: picks the recipe and its sizes, and says why",
    "compare": "how many labels do methods save on your data? Ends in a page",
    "benchmark": "the former name of compare",
    "evaluate": "the evals of a finished run again",
    "report": "runs as one page: curves, label budgets, mistakes",
    "table": "results of runs as a Markdown table",
    "scores": "a picture of a run's similarities of pairs",
    "features": "features of images from a trained encoder, as .npz or Parquet",
    "predict": "what a trained classifier says of other images or sentences, as a table",
    "export": "a trained encoder as one file that runs without labelfx",
    "suggest": "which rows to label next: a table to fill in, and a page with the pictures or sentences",
    "vote": "what several runs name the training rows, for self-training on their agreement",
    "condense": "a small data set with soft labels out of a large one and finished runs",
    "reinforce": "soft labels of finished runs, stored once: any student learns from them without a teacher",
    "derive": "a network out of finished runs' weights: merged, pruned, made to forget",
    "mine": "hard negatives from two files of embeddings",
    "plan": "does a recipe fit a TPU slice? Needs no TPU",
}


def main() -> None:
    print("labelfx trains models on much data with few labels. Its commands; --help of each one lists its flags:\n")
    for name, line in COMMANDS.items():
        print(f"  python -m labelfx.{name:<12}{line}")


if __name__ == "__main__":
    main()
