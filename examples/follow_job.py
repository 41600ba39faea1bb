"""Follow a job over HTTP with nothing but the standard library: print its log, end as it ended.

CI_KEY=ci_… python examples/follow_job.py http://127.0.0.1:8000 4f1c0a2b

It parses the lines that begin with `data: ` and counts the visible events, which is enough: they are numbered 1, 2, 3 …
So it comes back exactly where it was, whatever happened to the connection or the server. It says which incarnation of
the log it has seen, so that it is told if that was lost.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

#: A server says something every 15 seconds.
SILENCE_SECONDS = 45


def stream(url: str, key: str | None) -> Iterator[dict[str, Any]]:
    """Yield what one response has, until it ends or breaks."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response:
        for line in response:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


def follow(server: str, job_id: str, key: str | None) -> bool:
    """Print a job's log to its end; return whether the job passed."""
    seen, incarnation = 0, ""
    while True:
        query = urllib.parse.urlencode({"last_event_id": seen, "incarnation": incarnation})
        url = f"{server}/jobs/{urllib.parse.quote(job_id)}/stream?{query}"
        try:
            for event in stream(url, key):
                incarnation = event.get("incarnation", incarnation)
                if event["type"] == "reset":
                    print("\n[the store has lost events; the log begins again]", flush=True)
                    seen = 0
                elif event["type"] == "gap":
                    print("\n[events are missing here]", flush=True)
                    seen = event["position"] - 1
                elif event["type"] == "log":
                    seen += 1
                    print(event["data"], end="", flush=True)
                elif event["type"] == "complete":
                    return bool(event["success"])
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(0 if follow(sys.argv[1], sys.argv[2], os.environ.get("CI_KEY")) else 1)
