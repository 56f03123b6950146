"""Methods that learn from the outputs of another network."""
