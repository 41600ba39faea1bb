"""Run a script with one of its commands refused, on a real server: the typed functions stay as they are."""

from collections.abc import Iterable, Sequence
from typing import Any

from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import Reply, as_texts
from ci_eventstore.connection.scripts import Script

#: Where a refused command is noted.
NOTE = "refused"
#: Stands before a script: its `redis` counts commands and refuses one of them, as a server would.
SHADOW = """
local server, made = redis, 0
local function refuses(...)
  made = made + 1
  if made == {turn} then
    server.call('SET', '{note}', table.concat({{...}}, ' ', 1, math.min(2, select('#', ...))))
    return true
  end
  return false
end
local redis = {{sha1hex = server.sha1hex, error_reply = server.error_reply, acl_check_cmd = server.acl_check_cmd}}
function redis.call(...)
  if refuses(...) then
    error({{err = 'ERR refused by the test'}})
  end
  return server.call(...)
end
function redis.pcall(...)
  return refuses(...) and {{err = 'ERR refused by the test'}} or server.pcall(...)
end
"""


class RefusingServer(Nodes):
    """A server whose n-th command of one script is refused, and that remembers that script's last call."""

    def __init__(self, url: str) -> None:
        super().__init__(from_url(url))
        self.script_name = ""
        #: Which command is refused, counted from 1; 0: none.
        self.turn = 0
        self.last: tuple[Script, Sequence[str | bytes], list[Any]] | None = None

    async def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Iterable[str | int | bytes],
        *,
        patience_seconds: float | None = None,
    ) -> Reply:
        """Run a script, refusing what is to be refused."""
        values = list(arguments)
        if script.name != self.script_name:
            return await super().run(script, keys, values)
        self.last = (script, keys, values)
        if self.turn:
            source = SHADOW.format(turn=self.turn, note=NOTE) + script.source
            script = Script(script.name, lambda: source)
        return await super().run(script, keys, values)

    async def again(self) -> Reply:
        """Repeat the last call with nothing refused, as a client does that got no answer."""
        assert self.last is not None
        script, keys, values = self.last
        return await super().run(script, keys, values)

    def last_keys(self) -> list[str]:
        """Return the keys of the last call."""
        return [] if self.last is None else [key if isinstance(key, str) else key.decode() for key in self.last[1]]

    async def refused(self) -> str | None:
        """Return the command that was refused, and its first argument, and forget it; None if none was."""
        note = await self.read("GETDEL", NOTE)
        return None if note is None else note.decode()


async def dump(server: Nodes, without: Sequence[str] = ()) -> dict[str, bytes]:
    """Return what all keys hold, but for some kinds of keys that may change by the way."""
    keys = [key for key in as_texts(await server.read("KEYS", "*")) if not any(f"}}:{name}" in key for name in without)]
    return {key: await server.read("DUMP", key) for key in sorted(keys)}
