"""The pictures of a run, one kind a file."""
