"""Pure losses: arrays in, a scalar out. One module a family, one function an objective."""
