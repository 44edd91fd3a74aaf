"""Damaged files for every reader of files that may come from others: `make fuzz`, and a short part of it as tests."""
