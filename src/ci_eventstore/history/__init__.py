"""What becomes of jobs that have ended: their logs are sealed, the jobs are deleted, or copied to another store."""
