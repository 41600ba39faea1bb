"""Following live jobs, beside the usual ways: latency, CPU time, memory, and streams over HTTP."""
