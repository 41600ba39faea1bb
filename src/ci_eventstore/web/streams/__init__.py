"""Live streams as responses: their wire format, where one resumes, and all those that are open."""
