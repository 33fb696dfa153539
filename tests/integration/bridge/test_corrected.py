"""A bridge that waits connects at a reload, because its operator may have corrected a file."""

from __future__ import annotations

from bridge_rig import CONNACK, BridgeRig, Peer, ScriptedRemote, bridge

from appliance.bridge.backoff import Pace
from appliance.config.values import ReadPath

SLOW = Pace(first_s=3600.0, longest_s=3600.0, patient_s=3600.0)


async def test_a_reload_tries_again_with_what_the_file_has_now(tmp_path) -> None:
    """The corrected password counts at once, although the waits have grown long."""
    password = tmp_path / "password.txt"
    password.write_text("wrong", "utf-8")

    async def script(peer: Peer, _number: int) -> None:
        if (await peer.expect(1)).endswith(b"right"):
            peer.send(CONNACK)
            await peer.serve()
        else:
            peer.send(b"\x20\x02\x00\x05")
            peer.close()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, username="u", password_file=ReadPath(str(password)))
        async with BridgeRig(tmp_path / "here", config, pace=SLOW) as rig:
            await rig.failed("wrong password or user name")
            password.write_text("right", "utf-8")
            rig.bridges.take((config,))
            await rig.connected()
            assert remote.connections == 2
