"""A peer that speaks the first bytes of kdfs's protocol by hand, so that a test can get them wrong:
TLS 1.3 under a key derived from the cluster key (by the openssl command), then a Hello, then
frames. See kdfs/rt/tcp_handshake.h and kdfs/rt/frame.h."""

import hashlib
import hmac
import struct
import subprocess

HELLO_MAGIC = 0x4F4C484B
ROLE_TOOL = 4
CONTROL = 1
FRAME_MAGIC = 0x5346444B
FRAME_SEALED = struct.Struct("<IBBHQQQIIQII")
FRAME_HEADER_BYTES = 64
PROTOCOL_VERSION = 1


def header(version=PROTOCOL_VERSION, body_bytes=0, payload_bytes=0):
    """A frame's 64 bytes, whose seal is wrong."""
    sealed = FRAME_SEALED.pack(
        FRAME_MAGIC, version, 0, 1, 1, 0, 0, body_bytes, payload_bytes, 0, 0, 0)
    return sealed + bytes(FRAME_HEADER_BYTES - len(sealed))


def hello(cluster_id, version=PROTOCOL_VERSION):
    def text(value):
        return struct.pack("<I", len(value)) + value

    body = struct.pack("<IHHBB", HELLO_MAGIC, version, 0, CONTROL, 0) + text(cluster_id.encode())
    body += struct.pack("<BQ", ROLE_TOOL, 0) + text(b"raw") + text(b"")
    return struct.pack("<H", len(body)) + body


def member_key(cluster_key, identity):
    """HKDF-SHA256, one block."""
    extracted = hmac.digest(b"kdfs member key 1", cluster_key, "sha256")
    return hmac.digest(extracted, identity.encode() + b"\x01", hashlib.sha256)


def cluster_name(key_file):
    """The name of a cluster in the handshake, which follows from its key (kdfs/rt/real_env.cc)."""
    return member_key(bytes.fromhex(key_file.read_text().strip()), "kdfs cluster name")[:8].hex()


def send(address, cluster_id, key_file, data, hang_up=False):
    """Sends `data` inside TLS to host:port, and then hangs up or waits until the daemon does; gives
    what came back, with openssl's messages."""
    identity = f"{cluster_id}:{ROLE_TOOL}:0:raw"
    key = member_key(bytes.fromhex(key_file.read_text().strip()), identity)
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address, "-tls1_3", "-quiet",
         "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-psk", key.hex(), "-psk_identity", identity,
         *(["-no_ign_eof"] if hang_up else [])],
        input=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
    return done.stdout.decode(errors="replace")
