"""What security tests stand on: both ways into the gateway over a real socket, and a platform whose engine tells what
it was sent."""

from tests.gateway.test_server import bench as bench
