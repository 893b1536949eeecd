"""bert-as-service 1.10, bound to this machine alone, and without the prefetch that makes a lone request wait for the
next one on a CPU (its own help says 0 is meant there). Runs in Python 3.7."""

import sys

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


zmq.Socket.bind, flask.Flask.run, server.BertWorker.__init__ = bind_here, run_here, init_without_prefetch
sys.exit(main())
