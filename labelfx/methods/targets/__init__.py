"""Targets that methods make themselves: what `config.method.pseudo_labels` may name. No file here is a method."""
