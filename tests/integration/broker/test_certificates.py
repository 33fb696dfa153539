"""Client certificates: the name in one as user name, and those that are revoked."""

import contextlib
import datetime
import ssl
from types import SimpleNamespace

import certificates
import pytest
from broker_rig import Closed, Rig, Wire, both

from appliance.broker.certificate_name import common_name
from appliance.config.tables import AccessRule, ListenerConfig, TlsConfig
from appliance.mqtt.packets import PacketError


@pytest.fixture
def files(tmp_path):
    return certificates.make(tmp_path / "certificates")


def listener(files, **more) -> ListenerConfig:
    tls = TlsConfig(certfile=files.server, keyfile=files.server_key, client_ca=files.root, **more)
    return ListenerConfig(name="mutual", bind="127.0.0.1:0", tls=tls)


def shows_certificate(files) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.root)
    context.load_cert_chain(files.client, files.client_key)
    return context


async def comes_in(rig: Rig, files) -> bool:
    """Whether a client with the certificate is let in."""
    try:
        wire = await Wire.open(
            rig.broker.ports["mutual"], host="localhost", tls=shows_certificate(files)
        )
        answer = await wire.connect("c")
    except (Closed, OSError, EOFError):
        return False
    wire.writer.close()
    with contextlib.suppress(OSError):
        await wire.writer.wait_closed()
    return answer is not None


@both
async def test_certificate_names_the_user(tmp_path, files, version):
    """Its common name is the user name, whatever CONNECT says; no password is asked for."""
    rules = (AccessRule(user="Test client", publish=("mine/#",)),)
    async with Rig(
        tmp_path / "data",
        listeners=(listener(files, identity_as_username=True),),
        anonymous=False,
        rules=rules,
    ) as rig:
        wire = await Wire.open(
            rig.broker.ports["mutual"], version, host="localhost", tls=shows_certificate(files)
        )
        await wire.connect("c", username="somebody else", password=b"guessed")
        assert [each.username for each in rig.broker.connections.all()] == ["Test client"]
        answer = await wire.publish_acked("mine/m", b"1", qos=1)
        assert answer.codes[:1] in ([], [0])


@pytest.mark.parametrize(
    "subject",
    [
        (),
        ((("organizationName", "plant"),),),
        ((("commonName", "a"),), (("commonName", "b"),)),
        ((("commonName", ""),),),
        ((("commonName", "a\x1b[31m"),),),
    ],
)
def test_certificate_without_a_usable_name(subject):
    """Without one printable common name, the client can't come in."""
    with pytest.raises(PacketError, match="common name"):
        common_name(SimpleNamespace(getpeercert=lambda: {"subject": subject}))


async def test_revoked_certificate(tmp_path, files):
    """A certificate on the list can't come in; a changed list counts without a restart."""
    crl = tmp_path / "revoked.pem"
    crl.write_bytes(certificates.revocation_list(files))
    async with Rig(tmp_path / "data", listeners=(listener(files, crl_file=str(crl)),)) as rig:
        assert await comes_in(rig, files)
        crl.write_bytes(certificates.revocation_list(files, files.client))
        (mutual,) = rig.broker._listeners.values()
        assert "taken into use" in mutual.reload_certificates()
        assert not await comes_in(rig, files)
        assert mutual.state().health.level == "ok"


async def test_revocation_list_out_of_date(tmp_path, files):
    """Nobody comes in by a list that is out of date, and the listener's state says why."""
    crl = tmp_path / "revoked.pem"
    crl.write_bytes(certificates.revocation_list(files, valid=-datetime.timedelta(hours=1)))
    async with Rig(tmp_path / "data", listeners=(listener(files, crl_file=str(crl)),)) as rig:
        assert not await comes_in(rig, files)
        (mutual,) = rig.broker._listeners.values()
        assert "CRL has expired" in mutual.state().health.text
        crl.write_bytes(certificates.revocation_list(files))
        mutual.reload_certificates()
        assert mutual.state().health.level == "ok"
        assert await comes_in(rig, files)
