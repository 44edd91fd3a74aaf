"""From the packagings that NYUv2 is published in to one layout on disk."""
