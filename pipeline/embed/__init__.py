"""Kept texts in, one float16 unit vector per document out.

`stage` writes a part, `encoder` runs the model over batches, `windows` tokenizes.
`identity` finds the model and names it, and `backends/` run it in torch, ONNX Runtime or OpenVINO.
"""
