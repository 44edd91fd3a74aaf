"""Task heads, one family a file."""
