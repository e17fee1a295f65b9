"""A Verilog model of Cyclone V's M10K: Yosys' own, whose part-selects no simulator takes, written again."""


def models() -> str:
    """The module."""
    return """
module MISTRAL_M10K #(parameter INIT = 10240'b0, CFG_ABITS = 10, CFG_DBITS = 10)
    (input CLK1, input [CFG_ABITS-1:0] A1ADDR, B1ADDR, input [CFG_DBITS-1:0] A1DATA, input A1EN, B1EN,
     output reg [CFG_DBITS-1:0] B1DATA);
  reg [10239:0] bits = INIT;
  // The enable to write is active low but for 40 bits, as Yosys' mapping has it.
  wire write = CFG_DBITS == 40 ? A1EN : !A1EN;
  // Where a netlist leaves a bit open, such as behind a memory's last word, hardware holds a zero or a one: x would
  // spread through logic that computes the same with either.
  integer k;
  initial begin
    for (k = 0; k < 10240; k = k + 1) if (bits[k] === 1'bx) bits[k] = k ^ k >> 1 ^ k >> 3;
    B1DATA = 0;
  end
  always @(posedge CLK1) begin
    if (write) bits[A1ADDR * CFG_DBITS +: CFG_DBITS] <= A1DATA;
    if (B1EN) B1DATA <= bits[B1ADDR * CFG_DBITS +: CFG_DBITS];
  end
endmodule
"""
