"""Verilog models of the block memories of Xilinx' series 7, which Yosys knows by their ports alone.

Written after UG473, for what Yosys makes of a memory with one port to read and one to write: it reads at A and
writes at B. Whatever else a netlist asks for ends the simulation.
"""


def models() -> str:
    """Both modules."""
    return _memory("RAMB18E1", 2048) + _memory("RAMB36E1", 4096)


def _memory(name: str, size: int) -> str:
    """A memory of ``size`` bytes of nine bits, the ninth apart from the others as in the block's parameters."""
    half = {2048: 16, 4096: 32}[size]  # data bits at one of the two ports
    address = {2048: 14, 4096: 16}[size]
    init = [f"INIT_{k:02X}" for k in range(size // 32)]
    parity = [f"INITP_{k:02X}" for k in range(size // 256)]
    given = ['RAM_MODE = "TDP"', 'SIM_DEVICE = ""', "DOA_REG = 0", "DOB_REG = 0"]
    given += [f"{way}_WIDTH_{p} = 0" for way in ("READ", "WRITE") for p in "AB"]
    given += [f"{what}_{p} = 0" for what in ("INIT", "SRVAL") for p in "AB"]
    given += [f'WRITE_MODE_{p} = "WRITE_FIRST"' for p in "AB"]
    given += ['RAM_EXTENSION_A = "NONE"', 'RAM_EXTENSION_B = "NONE"']
    given += [f"{name} = 256'b0" for name in (*init, *parity)]
    enables = {2048: (2, 4), 4096: (4, 8)}[size]

    def write(byte: int) -> str:
        # A word narrower than the port has its bytes at the bottom, and as many enables.
        return (
            f"      if (WEBWE[{byte}] && WRITE_WIDTH_B > {max(9 * byte, 8)}) begin\n"
            f"        data[(wide_at + {byte}) * 8 +: 8] <= di[{8 * byte} +: 8];\n"
            f"        parity[wide_at + {byte}] <= dip[{byte}];\n"
            "      end\n"
        )

    return f"""
module {name} #(parameter {", ".join(given)})
    (output [{half - 1}:0] DOADO, DOBDO, output [{half // 8 - 1}:0] DOPADOP, DOPBDOP,
     input [{address - 1}:0] ADDRARDADDR, ADDRBWRADDR, input [{half - 1}:0] DIADI, DIBDI,
     input [{half // 8 - 1}:0] DIPADIP, DIPBDIP, input [{enables[0] - 1}:0] WEA, input [{enables[1] - 1}:0] WEBWE,
     input CLKARDCLK, CLKBWRCLK, ENARDEN, ENBWREN, REGCEAREGCE, REGCEB, RSTRAMARSTRAM, RSTRAMB, RSTREGARSTREG, RSTREGB);
  reg [{8 * size - 1}:0] data;
  reg [{size - 1}:0] parity;
  initial begin
    data = {{{", ".join(reversed(init))}}};
    parity = {{{", ".join(reversed(parity))}}};
    #1 if (DOA_REG || DOB_REG || READ_WIDTH_B || WRITE_WIDTH_A || RAM_EXTENSION_A != "NONE"
        || (READ_WIDTH_A && WRITE_WIDTH_B && (READ_WIDTH_A < 9) != (WRITE_WIDTH_B < 9))) begin
      $display("FAIL: unknown {name}"); $finish;
    end
  end
  wire [{2 * half - 1}:0] di = RAM_MODE == "SDP" ? {{DIBDI, DIADI}} : DIBDI;
  wire [{half // 4 - 1}:0] dip = RAM_MODE == "SDP" ? {{DIPBDIP, DIPADIP}} : DIPBDIP;
  // Addresses count bits; the highest of {address} at a RAMB36E1 is for cascades. Words below nine have no parity.
  localparam READ = READ_WIDTH_A < 9 ? READ_WIDTH_A : READ_WIDTH_A / 9 * 8;
  localparam WRITE = WRITE_WIDTH_B < 9 ? WRITE_WIDTH_B : WRITE_WIDTH_B / 9 * 8;
  localparam NARROW = WRITE_WIDTH_B && WRITE_WIDTH_B < 9 ? WRITE_WIDTH_B : 1;
  wire [{(8 * size - 1).bit_length() - 1}:0] read_bit = ADDRARDADDR & ~(READ - 1);
  wire [{(8 * size - 1).bit_length() - 1}:0] wide_bit = ADDRBWRADDR & ~(WRITE - 1);
  wire [{(size - 1).bit_length() - 1}:0] read_at = read_bit >> 3, wide_at = wide_bit >> 3;
  reg [{2 * half - 1}:0] shown = 0;
  reg [{half // 4 - 1}:0] shown_parity = 0;
  assign {{DOBDO, DOADO}} = shown;
  assign {{DOPBDOP, DOPADOP}} = shown_parity;
  always @(posedge CLKARDCLK) if (ENARDEN) begin
    shown <= RSTRAMARSTRAM ? {{SRVAL_B, SRVAL_A}} : data[read_bit +: {2 * half}];
    shown_parity <= parity[read_at +: {half // 4}];
    if (RSTRAMARSTRAM || (ENBWREN && |WEBWE && read_bit == wide_bit && WRITE_MODE_B == "WRITE_FIRST")) begin
      shown <= {{{2 * half}{{1'bx}}}};  // nothing of ours resets it, or reads what is being written in this mode
      shown_parity <= {{{half // 4}{{1'bx}}}};
    end
  end
  always @(posedge CLKBWRCLK) if (ENBWREN) begin
      if (WEBWE[0] && WRITE_WIDTH_B && WRITE_WIDTH_B < 9) data[wide_bit +: NARROW] <= di[NARROW - 1:0];
{"".join(write(byte) for byte in range(enables[1]))}  end
endmodule
"""
