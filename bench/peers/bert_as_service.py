"""bert-as-service 1.10, bound to this machine alone, on free ports, with its files in the folder it is started in, and
without the prefetch that makes a lone request wait for the next one on a CPU (its own help says 0 is meant there). Runs
in Python 3.7."""

import os
import socket
import sys

# before anything asks for a temporary folder: a copy of the graph and ZeroMQ's sockets are left there for ever
os.environ["TMPDIR"] = os.getcwd()  # noqa: PTH109

import flask
import zmq
from bert_serving import server
from bert_serving.server.cli import main

bind, run, init = zmq.Socket.bind, flask.Flask.run, server.BertWorker.__init__


def bind_here(self, address):
    return bind(self, address.replace("tcp://*", "tcp://127.0.0.1") if isinstance(address, str) else address)


def run_here(self, *rest, **named):
    named["host"] = "127.0.0.1"
    return run(self, *rest, **named)


def init_without_prefetch(self, *rest, **named):
    init(self, *rest, **named)
    self.prefetch_size = 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


zmq.Socket.bind, flask.Flask.run, server.BertWorker.__init__ = bind_here, run_here, init_without_prefetch
sys.argv += ["-port", free_port(), "-port_out", free_port()]
sys.exit(main())
