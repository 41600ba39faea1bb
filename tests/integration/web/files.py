"""What jobs' zip files a web server has kept."""

from pathlib import Path

from ci_common.models import Job
from ci_eventstore.web import WebSettings


def names_in(settings: WebSettings) -> list[str]:
    """Return the names of all files in its folder."""
    folder = settings.project_folder
    return [] if folder is None or not folder.exists() else [path.name for path in folder.iterdir()]


def content_of(job: Job) -> bytes:
    """Return a job's zip file."""
    assert job.zip_file_path is not None
    return Path(job.zip_file_path).read_bytes()
