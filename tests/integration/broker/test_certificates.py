"""Client certificates: the name in one as user name, and those that are revoked."""

import base64
import contextlib
import dataclasses
import datetime
import ssl
from pathlib import Path
from types import SimpleNamespace

import certificates
import pytest
from broker_rig import Closed, Rig, Wire, both

from appliance.broker.certificate_name import common_name
from appliance.broker.revocation import certificate_name, revoked_certificates
from appliance.config.tables import AccessRule, ListenerConfig, TlsConfig
from appliance.counters import Counter
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


@both
async def test_a_client_whose_certificate_is_revoked_is_ended(tmp_path, files, version):
    """It is told why, another client stays, and no handshake that was begun before lets it in."""
    crl = tmp_path / "revoked.pem"
    crl.write_bytes(certificates.revocation_list(files))
    other = dataclasses.replace(files, client=files.other, client_key=files.other_key)
    async with Rig(tmp_path / "data", listeners=(listener(files, crl_file=str(crl)),)) as rig:
        port = rig.broker.ports["mutual"]

        async def wire(of) -> Wire:
            return await Wire.open(port, version, host="localhost", tls=shows_certificate(of))

        revoked, stays, late = await wire(files), await wire(other), await wire(files)
        await revoked.connect("revoked")
        await stays.connect("stays")
        crl.write_bytes(certificates.revocation_list(files, files.client))
        await rig.broker._sweep_once()
        last = await revoked.closed()
        assert (last and last.body[0]) == (0x87 if version == 5 else None)
        assert rig.counters[Counter.CONNECTIONS_ENDED_ACCESS_WITHDRAWN] == 1
        await stays.ping()
        late.send(late.connect_packet("late"))
        assert (await late.closed()).body[1] == (0x87 if version == 5 else 5)


def test_names_in_a_revocation_list(tmp_path, files):
    """A certificate has the name that a list calls it by; a list that is cut is an error."""
    [name] = revoked_certificates(
        write(tmp_path / "crl.pem", certificates.revocation_list(files, files.client))
    )
    shown = ssl.PEM_cert_to_DER_cert(Path(files.client).read_text("ascii"))
    assert certificate_name(shown) == name
    assert certificate_name(ssl.PEM_cert_to_DER_cert(Path(files.server).read_text())) != name
    both_lists = certificates.revocation_list(files) + certificates.revocation_list(
        files, files.server, files.client
    )
    assert len(revoked_certificates(write(tmp_path / "crl.pem", both_lists))) == 2
    whole = base64.b64decode("".join(both_lists.decode().split("-----")[2].split()))
    for size in (1, 2, 5, len(whole) // 2):
        cut = b"-----BEGIN X509 CRL-----%s-----END X509 CRL-----" % base64.b64encode(whole[:size])
        with pytest.raises(ValueError, match="field"):
            revoked_certificates(write(tmp_path / "crl.pem", cut))


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


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
