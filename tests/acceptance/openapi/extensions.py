"""What schemathesis is told beside its configuration: what a zip file is, and one check more."""

import io
import zipfile
from typing import Any

import schemathesis
from hypothesis import strategies as st

Case = schemathesis.Case[Any]


def zip_file() -> bytes:
    """Return a zip file with one small file in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("file.txt", "hello")
    return made.getvalue()


schemathesis.openapi.format("binary", st.just(zip_file()))
schemathesis.openapi.media_type("application/zip", st.just(zip_file()))


#: Read as true or false, too, as links and forms have them. Generated clients need to know of two texts alone.
OTHER_FLAGS = ("1", "0", "t", "f", "y", "n", "on", "off", "yes", "no", "")


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: Case) -> bool:
    """Leave out what is accepted, or refused, although the schema doesn't say so.

    Forms with one empty `command` are forbidden by `prefixItems`, which isn't looked at. Whatever a form has is text.
    """
    if isinstance(case.body, dict):
        fields = [case.body[name] for name in ("command", "name", "queue") if name in case.body]
        texts = [text for field in fields for text in (field if isinstance(field, list) else [field])]
        is_form = case.media_type == "multipart/form-data"
        if case.body.get("command") in ([""], "") or (is_form and not all(map(_is_text, texts))):
            return False
    flags = (str((case.query or {}).get(name, "true")) for name in ("from_beginning", "timestamps", "provisional"))
    return all(flag.strip().lower() not in OTHER_FLAGS for flag in flags)


@schemathesis.check
def status_is_documented(context: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """Each status is in the document by its number; its `4XX` is for what stands around the routes."""
    assert response.status_code == 405 or str(response.status_code) in case.operation.definition.raw["responses"]


def _is_text(value: object) -> bool:
    return isinstance(value, str)
