"""Simulation of the generated hardware against the integer reference. Imported as hwrnn.sim."""
