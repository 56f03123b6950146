"""Methods that learn from few labels and many rows without one."""
