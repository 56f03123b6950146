"""Methods that learn from labelled rows alone."""
