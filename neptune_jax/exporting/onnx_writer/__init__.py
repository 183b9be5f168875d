"""From a function of JAX to an ONNX model: jaxpr in, nodes out."""
