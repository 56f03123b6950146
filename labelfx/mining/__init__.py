"""Similarity search over stored embeddings, and the selection of hard negatives from what it finds."""
