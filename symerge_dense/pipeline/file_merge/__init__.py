"""Checkpoints merged from files to a file, however large they are."""
