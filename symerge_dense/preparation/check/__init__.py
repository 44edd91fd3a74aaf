"""Check a prepared data set. Every file is read once."""
