"""What paramiko's connections take from files of known hosts, and what they pass over."""

import base64
import pathlib
import struct
from typing import Dict

import pytest

paramiko = pytest.importorskip('paramiko', exc_type=ImportError)

from support.sshd import OpenSshServer, for_paramiko, make_key  # noqa: E402

from generic_connection_pool.contrib.paramiko import (  # noqa: E402
    ChangedHostKeyError,
    SshConnectionManager,
    UnknownHostKeyError,
)

Manager = SshConnectionManager[str]


@pytest.fixture
def known_hosts(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / 'known_hosts'


@pytest.fixture
def manager(sshd: OpenSshServer, known_hosts: pathlib.Path) -> Manager:
    return SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=known_hosts)


def encoded(*parts: bytes) -> str:
    """A public key of these parts, as it is written in files of known hosts."""
    return base64.b64encode(b''.join(struct.pack('>I', len(part)) + part for part in parts)).decode()


#: lines that mention a host, and yet do not tell its key
UNTELLING: Dict[str, str] = {
    'nothing': '',
    'blanks': ' \t ',
    'a comment': '# {name} {key}',
    'a comment that looks like several names': '#,{name} {key}',
    'a name and nothing else': '{name}',
    'no key': '{name} ssh-ed25519',
    'a key that is no base64': '{name} ssh-ed25519 A',
    'a key that is cut off': '{name} ssh-ed25519 ' + encoded(b'ssh-ed25519', b'short'),
    'a key of nothing': '{name} ssh-ed25519 ' + encoded(),
    'a key with a negative number': '{name} ssh-rsa ' + encoded(b'ssh-rsa', b'\xff', b'\0\xff' + b'\x01' * 255),
    'a key that is of another kind than is said': '{name} ssh-rsa ' + encoded(b'ssh-ed25519', b'1' * 32),
    'a key that is no text where there should be some': '{name} ecdsa-sha2-nistp256 ' + encoded(b'\xff\xfe'),
    'a key of a kind that nobody has heard of': '{name} ssh-unheard-of ' + encoded(b'ssh-unheard-of', b'1' * 32),
    'an authority': '@cert-authority {name} {key}',
    'a marker that nobody has heard of': '@unheard-of {name} {key}',
    'a marker and nothing else': '@revoked',
    'a hashed name without a salt': '|1| {key}',
    'a hashed name whose salt is no base64': '|1|A|A {key}',
    'a hashed name whose salt is too short': '|1|c2hvcnQ=|c2hvcnQ= {key}',
    'the hash of another name': f'{paramiko.HostKeys.hash_host("[elsewhere]:22")} {{key}}',
    'another host': 'elsewhere {key}',
}


@pytest.mark.parametrize('what', UNTELLING)
def test_a_line_that_tells_no_key_of_a_host_is_passed_over(
    sshd: OpenSshServer, manager: Manager, known_hosts: pathlib.Path, what: str
) -> None:
    line = UNTELLING[what].format(name=sshd.name, key=sshd.public_key())
    known_hosts.write_text(f'{line}\n')
    with pytest.raises(UnknownHostKeyError):
        manager.create('main')
    # the lines that follow it count
    known_hosts.write_text(f'{line}\n{sshd.name} {sshd.public_key()}\n')
    manager.dispose('main', manager.create('main'))


def test_of_several_keys_of_a_kind_the_first_is_known(
    sshd: OpenSshServer, manager: Manager, known_hosts: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    make_key(tmp_path / 'other')
    right, other = f'{sshd.name} {sshd.public_key()}\n', f'{sshd.name} {(tmp_path / "other.pub").read_text()}'
    known_hosts.write_text(right + other)
    manager.dispose('main', manager.create('main'))
    known_hosts.write_text(other + right)
    with pytest.raises(ChangedHostKeyError):
        manager.create('main')


def test_of_several_keys_of_a_kind_one_that_is_revoked_does_not_count(
    sshd: OpenSshServer, manager: Manager, known_hosts: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    make_key(tmp_path / 'other')
    revoked = (tmp_path / 'other.pub').read_text()
    known_hosts.write_text(f'{sshd.name} {revoked}{sshd.name} {sshd.public_key()}\n@revoked * {revoked}')
    manager.dispose('main', manager.create('main'))
