"""The dense task contract and the tasks themselves, one file each."""
