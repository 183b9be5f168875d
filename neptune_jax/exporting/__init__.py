"""A trained model as files for other programs: StableHLO, ONNX, safetensors, a model card."""
