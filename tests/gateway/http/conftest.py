"""The gateway on a real socket, by both ways of a request."""

from tests.gateway.http.connections import bench as bench
from tests.gateway.http.connections import way as way
