"""Tiny real things that tests are made of: data, networks, experts, files of other programs."""
