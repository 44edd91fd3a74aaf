"""Adaptive merging methods, one paper a file."""
