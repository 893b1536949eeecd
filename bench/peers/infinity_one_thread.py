"""Infinity's ONNX engine on one thread, which it has no flag for: ONNX Runtime heeds no affinity, and a second thread
that spins on the same core halves the speed."""

import sys

import onnxruntime as ort

start = ort.InferenceSession.__init__


def start_on_one_thread(self, path, sess_options=None, *rest, **named):
    options = sess_options or ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    start(self, path, options, *rest, **named)


ort.InferenceSession.__init__ = start_on_one_thread

from infinity_emb.cli import cli  # noqa: E402  # it must come after

sys.argv[0] = "infinity_emb"
sys.exit(cli())
