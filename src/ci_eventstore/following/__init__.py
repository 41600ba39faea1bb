"""Following live jobs: one reader for each job, however many follow it."""
