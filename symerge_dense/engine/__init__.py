"""MMEngine as this package uses it: runner, hooks, loops, checkpoints, optimizer wrappers."""
