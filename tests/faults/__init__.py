"""What a kill, a full disk or a vanished folder does to a job: `make torture`, and a short part of it as tests."""
