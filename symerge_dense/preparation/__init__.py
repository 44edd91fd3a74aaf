"""Prepare data: convert the published packagings of NYUv2 to one layout on disk, and check a prepared set."""
