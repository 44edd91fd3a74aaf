"""Weights to weights, pure torch: static mergers, one per file, and the layer-wise merge that SyMerge adapts."""
