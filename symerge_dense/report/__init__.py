"""Report: tables and pictures of a run. Numbers come from results.json and from nowhere else."""
