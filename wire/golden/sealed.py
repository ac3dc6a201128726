"""Makes the sealed configs of this directory, with other libraries than Redoubt's: an oracle.

    pip install cryptography && python3 sealed.py

The data key is the bytes 0 to 31; the sealer's key is that of RFC 8032, 7.1, test 1. config-2-twice.sealed holds a ciphertext that
AES-GCM alone opens under two data keys, the second being the bytes 32 to 63: the header commits to the first.
"""
import hashlib
import hmac
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FIRST, SECOND = bytes(range(32)), bytes(range(32, 64))
NONCE = bytes([3]) * 12
SEALER = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


def derived(data_key, what):
    """HKDF-SHA-512 (RFC 5869): no salt, 32 bytes."""
    extracted = hmac.digest(bytes(64), data_key, hashlib.sha512)
    info = b"redoubt sealed config 2: " + what
    return hmac.digest(extracted, info + b"\x01", hashlib.sha512)[:32]


def text(value):
    assert len(value) < 256
    head = bytes([0x60 + len(value)]) if len(value) < 24 else bytes([0x78, len(value)])
    return head + value.encode()


def octets(value):
    assert len(value) < 256
    head = bytes([0x40 + len(value)]) if len(value) < 24 else bytes([0x58, len(value)])
    return head + value


def header(sealer=b""):
    items = [text("orders"), b"\x07", text("arn:aws:kms:us-east-1:111122223333:key/k")]
    items += [b"\xa1" + text("app") + text("orders"), octets(bytes([9]) * 32), octets(NONCE)]
    items += [octets(derived(FIRST, b"commitment"))] + ([octets(sealer)] if sealer else [])
    encoded = bytes([0x80 + len(items)]) + b"".join(items)
    return b"redoubt\x02" + struct.pack(">I", len(encoded)) + encoded


def block(key, data):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(encryptor.update(data), "big")


def times(a, b):
    """In GCM's field (NIST SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xE1 << 120 if b & 1 else 0)
    return product


def power(a, exponent):
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = times(result, a)
        a, exponent = times(a, a), exponent >> 1
    return result


def twice(authenticated):
    """A ciphertext of two blocks whose tag is right under both keys: the second block is solved for."""
    padded = authenticated + bytes(-len(authenticated) % 16)
    known = [int.from_bytes(padded[i : i + 16], "big") for i in range(0, len(padded), 16)]
    lengths = len(authenticated) * 8 << 64 | 32 * 8
    first = int.from_bytes(b"\x5a" * 16, "big")
    keys = [derived(key, b"encryption") for key in (FIRST, SECOND)]
    hashes = [block(key, bytes(16)) for key in keys]
    masks = [block(key, NONCE + b"\0\0\0\x01") for key in keys]

    def tag(h, mask, second):
        total = 0
        for item in known + [first, second, lengths]:
            total = times(total ^ item, h)
        return total ^ mask

    difference = tag(hashes[0], masks[0], 0) ^ tag(hashes[1], masks[1], 0)
    factor = power(hashes[0], 2) ^ power(hashes[1], 2)
    second = times(difference, power(factor, 2**128 - 2))
    tags = {tag(h, mask, second) for h, mask in zip(hashes, masks)}
    assert len(tags) == 1
    return b"".join(part.to_bytes(16, "big") for part in (first, second, *tags))


here = pathlib.Path(__file__).parent
aead = AESGCM(derived(FIRST, b"encryption"))
plain = header()
(here / "config-2.sealed").write_bytes(plain + aead.encrypt(NONCE, b"TOKEN=x", plain))
signer = Ed25519PrivateKey.from_private_bytes(SEALER)
named = header(signer.public_key().public_bytes_raw())
signed = named + aead.encrypt(NONCE, b"TOKEN=x", named)
(here / "config-2-signed.sealed").write_bytes(signed + signer.sign(signed))
(here / "config-2-twice.sealed").write_bytes(plain + twice(plain))
for key in (FIRST, SECOND):
    AESGCM(derived(key, b"encryption")).decrypt(NONCE, twice(plain), plain)
