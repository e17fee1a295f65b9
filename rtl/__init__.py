"""Gates: from a quantized model to a datapath and its Verilog."""
