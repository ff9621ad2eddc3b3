"""What Redis and Valkey refuse for good is told apart from an outage."""

import socketserver
import ssl
import threading

import pytest
import redis

from connectors.errors import Gap, Poison
from connectors.tls import TlsFiles
from ingest.redis_client import check_server, connected, refused, translated

SCRIPT = "script: bb063ae12bd12bd2df25f25b7912f3c0eb07e1a7, on @user_script:32."


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.NoPermissionError("User w has no permissions to run the 'info' command"),
        redis.exceptions.ResponseError(
            f"The user executing the script can't run this command or subcommand {SCRIPT}"
        ),
        redis.exceptions.ResponseError(
            "ACL failure in script: User w has no permissions to access the 'k' key " + SCRIPT
        ),
        redis.exceptions.AuthenticationError("invalid username-password pair"),
    ],
    ids=["command", "script of Redis", "script of Valkey", "login"],
)
def test_a_refusal_names_the_address_with_the_user_in_it(error: Exception) -> None:
    """Each of these is the same tomorrow."""
    poison = refused(error)
    assert poison is not None
    assert poison.field == "REDIS_URL"


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Connection closed by server."),
        redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.exceptions.ResponseError(f"user_script:32: attempt to index a nil value {SCRIPT}"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    ],
    ids=["closed", "loading", "bug", "cut off"],
)
def test_what_may_mend_itself_is_no_refusal(error: Exception) -> None:
    """An outage that ended the line for good would be one of our making."""
    assert refused(error) is None


def test_a_server_that_forgets_keys_is_refused_and_one_that_is_gone_is_not() -> None:
    """`noeviction` is asked for by INFO, for which no right to CONFIG is needed."""

    class Server:
        def __init__(self, policy: str) -> None:
            self.policy = policy

        def info(self, section: str) -> dict[str, str]:
            assert section == "memory"
            return {"maxmemory_policy": self.policy}

    check_server(Server("noeviction"))
    with pytest.raises(Poison, match=r"allkeys-lru; set it to noeviction"):
        check_server(Server("allkeys-lru"))
    with pytest.raises(Gap, match="did not answer"), translated("takeover"):
        raise redis.exceptions.TimeoutError


class _Loading(socketserver.StreamRequestHandler):
    """A server that still reads its file: it takes connections and answers no question."""

    def handle(self) -> None:
        while header := self.rfile.readline():
            for _ in range(int(header[1:])):
                self.rfile.read(int(self.rfile.readline()[1:]) + 2)
            self.wfile.write(b"-LOADING Valkey is loading the dataset in memory\r\n")


def test_a_server_that_still_loads_its_file_is_not_there_yet() -> None:
    """A worker waits for it while it connects; after its takeover it would end instead."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Loading) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(Gap, match=r"connecting: .*loading"):
            connected(url, key="k", timeout_s=5.0, tls=TlsFiles(settings="HOLOLINE_REDIS"))
        server.shutdown()
