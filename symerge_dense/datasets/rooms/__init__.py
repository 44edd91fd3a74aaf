"""Rooms: indoor scenes rendered on the spot, with perfect labels for many tasks."""
