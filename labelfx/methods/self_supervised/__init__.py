"""Methods that learn representations from images or texts without a label."""
