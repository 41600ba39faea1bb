"""Routes of jobs: list, show, create, cancel; their events, as pages and as live streams."""
