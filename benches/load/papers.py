"""Certificates for one run (made by openssl), and what slotway and the load generators are told of them."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from targets import Failed


class Papers:
    """A CA and a certificate for 127.0.0.1, in a folder that `with` removes; `side` is who speaks TLS with the proxy."""

    def __init__(self, side):
        self.side, self.folder = side, Path(tempfile.mkdtemp(prefix="load-papers-"))
        self.ca, self.cert, self.key = (self.folder / name for name in ("ca.crt", "node.crt", "node.key"))
        ca_key = self.folder / "ca.key"
        self.sign("/CN=ca", ca_key, self.ca)
        extensions = ["subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE"]
        options = [word for extension in extensions for word in ("-addext", extension)]
        self.sign("/CN=node", self.key, self.cert, "-CA", self.ca, "-CAkey", ca_key, *options)

    def sign(self, subject, key, cert, *more):
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command = ["openssl", "req", "-x509", *kind, "-subj", subject, "-keyout", key, "-out", cert, *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"openssl: {done.stderr[-300:]}")

    def node_options(self, port):
        """Of redis-server, which speaks TLS with its like too."""
        files = ["--tls-ca-cert-file", self.ca, "--tls-cert-file", self.cert, "--tls-key-file", self.key]
        return ["--tls-port", port, "--tls-cluster", "yes", "--tls-auth-clients", "no", *files]

    def config(self, port):
        """The file of a slotway that speaks TLS with its nodes, or at this port with its clients."""
        nodes = f'[node]\ntls = true\ntls_ca_cert_file = "{self.ca}"\n'
        clients = f'[listen]\ntls = "127.0.0.1:{port}"\ntls_cert_file = "{self.cert}"\ntls_key_file = "{self.key}"\n'
        path = self.folder / f"slotway-{port}.toml"
        path.write_text(nodes if self.side == "nodes" else clients)
        return path

    def load_options(self):
        """Of either load generator."""
        return ["--tls", "--cacert", self.ca] if self.side == "clients" else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)
