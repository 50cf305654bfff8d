"""Where the encoder's model runs: torch on processors and GPUs, ONNX Runtime or OpenVINO on processors."""
