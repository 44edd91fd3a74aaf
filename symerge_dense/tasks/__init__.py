"""What a dense task is and the tasks themselves, one file each."""
