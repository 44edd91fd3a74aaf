"""What steps, merges and whole runs cost."""
