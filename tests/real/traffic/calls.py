"""gRPC through sidekey."""

from support import check
from . import lab


def suite_grpc(directory, tools):
    """grpcio on both sides: all four kinds of calls, status and metadata, deadlines, cancellations."""
    certificates = lab.Certificates(directory)
    words = [tools, "grpc_peers.py", certificates.cert, certificates.key, certificates.root]
    with lab.Peer(*words) as peers:
        routes = {
            "clear": (peers.urls["clear"], 'http = "2"'),
            "tls": (peers.urls["tls"], 'http = "2"'),
            "tls, agreed on": (peers.urls["tls"], ""),
        }
        with lab.Front(directory, certificates, routes) as sidekey:
            addresses = {route: [sidekey.address(route), sidekey.address(route, True)] for route in routes}
            ended, said = peers.check_all({"addresses": addresses, "token": lab.TOKEN})
            check("the gRPC peers run to their end", ended, said)


SUITES = {"grpc": suite_grpc}
