"""What becomes of jobs that have ended: their logs are sealed."""
