"""A model as other programs take it: for PyTorch alone, for runtimes of ONNX, for a hub of models."""
