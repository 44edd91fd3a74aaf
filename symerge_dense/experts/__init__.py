"""Experts: how they are trained, imported, and what is measured of them."""
