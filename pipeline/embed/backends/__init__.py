"""Token ids in, sentence embeddings out: one module per runtime.

`model` is the protocol and picks the runtime. `exported` writes the ONNX file that two of them
read.
"""
