"""Targets that are no labels: what `config.method.pseudo_labels` and `config.method.soft_labels` may name. No file here
is a method."""
