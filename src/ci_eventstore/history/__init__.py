"""What becomes of jobs that have ended: logs are sealed and archived, jobs are deleted, or copied to another store."""
