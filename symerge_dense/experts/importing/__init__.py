"""Experts that other programs trained, as model files of this package."""
