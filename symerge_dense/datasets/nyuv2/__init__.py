"""NYUv2 in every packaging that it is published in."""
