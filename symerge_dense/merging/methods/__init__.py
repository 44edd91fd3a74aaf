"""Static merging methods, one paper a file."""
