"""Tools that act on labels, without training: what to believe of labels that are doubtful or not there."""
