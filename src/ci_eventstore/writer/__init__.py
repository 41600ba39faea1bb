"""Write a job's log."""
