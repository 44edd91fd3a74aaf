"""Is a prepared data set sound? Every file is read once."""
