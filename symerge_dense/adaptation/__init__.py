"""Adaptation on unlabelled images: SyMerge, its rivals and controls, and the hook that ties them to MMEngine."""
