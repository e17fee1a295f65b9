"""Hardware: numbers as gates, engines, networks of engines and their Verilog. Imported as hwrnn.rtl."""
