"""Which jobs a text is found in, by the cases that the page's own test has as well."""

import json
from pathlib import Path

from ci_common.models import Job
from ci_eventstore.web.changes.listing import has_text

KNOWN = json.loads((Path(__file__).parents[2] / "page/list_text.json").read_text())


def test_a_job_has_each_word_somewhere() -> None:
    """In its name, command, id, queue or user, in capitals or not; nothing has no words."""
    fields = dict(KNOWN["job"])
    job, bare = Job(id=fields.pop("job_id"), **fields), Job(id="b", status="queued")
    for case in KNOWN["cases"]:
        assert has_text(job, case["text"]) is case["is_found"], case["name"]
        assert has_text(bare, case["text"]) is (not case["text"].strip()), case["name"]
