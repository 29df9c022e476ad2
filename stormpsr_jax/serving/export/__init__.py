"""A trained model as programs that other libraries run: ONNX and StableHLO."""
