"""Sends random bytes to the digest service and compares its SHA-256: upload.py ADDRESS MIB."""

import hashlib
import os
import socket
import sys

CHUNK = 1 << 20


def main():
    address, mebibytes = sys.argv[1], int(sys.argv[2])
    expected = hashlib.sha256()
    block = os.urandom(CHUNK)
    with socket.create_connection((address, 9000), timeout=60) as conn:
        for number in range(mebibytes):
            # Each MiB differs from the others, so that a swap of two would be found.
            piece = number.to_bytes(8, "big") + block[8:]
            expected.update(piece)
            conn.sendall(piece)
        conn.shutdown(socket.SHUT_WR)
        answer = conn.makefile().readline().strip()
    intact = answer == expected.hexdigest()
    print(f"{address}: {mebibytes} MiB up, {'intact' if intact else 'NOT intact: ' + answer}")
    sys.exit(0 if intact else 1)


main()
