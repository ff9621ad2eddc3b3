"""The live control: the real worker process, with the guards of the join's promise taken out.

Run it as ``python -m deploy.prove.unguarded worker --line line.yaml``, like `deploy.process`. Under
the faults that the real worker survives, the checker has to find violations here: a proof whose
faults could not break anything would prove nothing. Never run it on a line that matters.

What is off: scripts take any token and any `seq`; a takeover reads no verdicts back; of two
verdicts for one revision the newest is chosen, published or not.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from deploy import process
from deploy.settings import Settings
from ingest import publisher, store

_YES: Final = "\nguard = function() return nil end\n"
_NEWEST: Final = """
local reply = {'OK'}
for i = 3, #ARGV, 2 do
  redis.call('HSET', chosen, ARGV[i], ARGV[i + 1])
  reply[#reply + 1] = 0
end
return reply
"""


def take_guards_out(folder: Path) -> None:
    """From now on sessions of this process run without guards; their scripts lie in `folder`."""
    shutil.copytree(store._LUA, folder, dirs_exist_ok=True)  # noqa: SLF001 - a fault, injected
    prelude = folder / "prelude.lua"
    prelude.write_text(prelude.read_text() + _YES)
    (folder / "choose.lua").write_text(_NEWEST)
    setattr(store, "_LUA", folder)  # noqa: B010 - a constant to everyone else
    setattr(publisher.Publisher, "read_back", _believe)  # noqa: B010


def _believe(self: publisher.Publisher, *, start: int) -> None:
    """In the place of `Publisher.read_back`: what is in the log is not looked at."""
    del start
    reader = self._reader
    reader.seek(reader.stable_end())


if __name__ == "__main__":
    data_folder = Settings.read().data_folder
    data_folder.mkdir(parents=True, exist_ok=True)
    take_guards_out(Path(tempfile.mkdtemp(prefix="unguarded-", dir=data_folder)))
    process.main()
