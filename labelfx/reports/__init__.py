"""Runs side by side: sweeps, tables, figures, label budgets, and the page that holds them."""
