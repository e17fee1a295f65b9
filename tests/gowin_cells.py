"""Verilog models of Gowin's multipliers and block memories, which Yosys knows by their ports alone.

Written after Gowin UG287 (DSP) and UG285 (memory) for what our netlists use; whatever else a netlist asks for ends the
simulation.
"""

#: Blocks that Yosys' ``cells_sim.v`` has without content, to be dropped where the models below stand.
EMPTY = ("SP", "SPX9", "SDP", "SDPX9", "DP", "DPX9")
#: Icarus 11 ends itself at Yosys' model of this one in some netlists; the same, written as equations.
WRITTEN_AGAIN = ("ALU",)

ALU = """
module ALU #(parameter ALU_MODE = 0) (output SUM, COUT, input I0, I1, I3, CIN);
  wire [1:0] way =  // whether the carry passes, and the carry where it does not
    ALU_MODE == 0 ? {I0 ^ I1, I0} :
    ALU_MODE == 1 ? {I0 ^ ~I1, I0} :
    ALU_MODE == 2 ? {I0 ^ I1 ^ ~I3, I0} :
    ALU_MODE == 3 ? {I0 ^ ~I1, 1'b1} :
    ALU_MODE == 4 ? {I0 ^ ~I1, I0} :
    ALU_MODE == 5 ? {~I0 ^ I1, I1} :
    ALU_MODE == 6 ? {I0, 1'b0} :
    ALU_MODE == 7 ? {~I0, 1'b1} :
    ALU_MODE == 8 ? {I0 ^ ~I3, I0} :
    {(I0 & I1) ^ I3, I0 & I1};
  assign SUM = way[1] ^ CIN;
  assign COUT = way[1] ? CIN : way[0];
endmodule
"""


def models() -> str:
    """All modules."""
    multipliers = _multiplier("MULT9X9", 9) + _multiplier("MULT18X18", 18)
    return ALU + multipliers + "".join(kind(byte) for kind in (_single, _simple_dual, _dual) for byte in (8, 9))


def _multiplier(name: str, width: int) -> str:
    registers = [f"{r}_REG" for r in ("OUT", "PIPE", "ASIGN", "BSIGN", "SOA")]
    return f"""
module {name} #(parameter AREG = 0, BREG = 0, {", ".join(f"{r} = 0" for r in registers)}, MULT_RESET_MODE = "SYNC")
    (input CLK, CE, RESET, ASIGN, BSIGN, ASEL, BSEL, input [{width - 1}:0] A, B, SIA, SIB,
     output [{2 * width - 1}:0] DOUT, output [{width - 1}:0] SOA, SOB);
  wire signed [{width}:0] a = {{ASIGN & A[{width - 1}], A}};
  wire signed [{width}:0] b = {{BSIGN & B[{width - 1}], B}};
  assign DOUT = a * b;
  initial #1 if (AREG | BREG | {" | ".join(registers)} | ASEL | BSEL) begin
    $display("FAIL: unknown {name}"); $finish;
  end
endmodule
"""


def _start(name: str, byte: int, ports: str, parameters: str, known: str, outputs: str = "DO") -> str:
    """A memory's head, and its bits as one vector: 32 bytes of ``byte`` bits in each of 64 parameters."""
    init = ", ".join(f"INIT_RAM_{k:02X} = {32 * byte}'b0" for k in range(64))
    return f"""
module {name} #(parameter {parameters}, RESET_MODE = "SYNC", {init}) ({ports});
  reg [{64 * 32 * byte - 1}:0] bits;
  initial begin
    bits = {{{", ".join(f"INIT_RAM_{k:02X}" for k in reversed(range(64)))}}};
    {{{outputs}}} = 0;
    #1 if (!({known})) begin $display("FAIL: unknown {name}"); $finish; end
  end
"""


def _port(
    byte: int, width: str, clock: str, address: str, *, write: str, data: str, out: str, reset: str, mode: str,
    through: str = "",
) -> str:  # fmt: skip
    """A port: it writes whole words or, at two and four bytes, those that the low bits of the address name.

    Args:
        through: when what is written is also what is read.
    """
    sizes = {1: 0, 2: 1, 4: 2, byte: 3, 2 * byte: 4, 4 * byte: 5}  # bits of a word: address bits below it
    at = f"({address} >> ({' + '.join(f'{shift} * ({width} == {size})' for size, shift in sizes.items())}))"
    lines = [f"  always @(posedge {clock}) begin"]
    written: list[str] = []  # bytes of a word: when, and which
    if write:
        lines += [
            f"    if ({write}) begin",
            f"      if ({width} <= {byte}) bits[{at} * {width} +: {width}] <= {data};",
        ]
        for k in range(4):
            when = f"      if ({width} >= {(2 if k < 2 else 4) * byte} && {address}[{k}])"
            lines.append(f"{when} bits[{at} * {width} + {k * byte} +: {byte}] <= {data} >> {k * byte};")
            if k < 2:
                written.append(f"{when} {out}[{k * byte} +: {byte}] <= {data} >> {k * byte};")
        lines.append("    end")
    if out:
        read = f"bits[{at} * {width} +: {width}]"
        lines.append(f"    if ({reset}) {out} <= 0;")
        lines.append(f"    else if ({mode}) {out} <= {read};")
    if through:
        lines += [f"    else if ({through}) begin", f"      {out} <= {width} <= {byte} ? {data} : {read};"]
        lines += [*written, "    end"]
    return "\n".join([*lines, "  end", ""])


def _single(byte: int) -> str:
    name, width = {8: "SP", 9: "SPX9"}[byte], 4 * byte
    ports = f"output reg [{width - 1}:0] DO, input [{width - 1}:0] DI, input [2:0] BLKSEL, input [13:0] AD,\n"
    ports += "    input WRE, CLK, CE, OCE, RESET"
    parameters = f"READ_MODE = 0, WRITE_MODE = 0, BIT_WIDTH = {width}, BLK_SEL = 0"
    # Mode 0 holds what was read while it writes, mode 2 reads what was there; mode 1 nothing of ours needs.
    known = "READ_MODE == 0 && WRITE_MODE != 1 && BLKSEL === BLK_SEL"
    port = _port(byte, "BIT_WIDTH", "CLK", "AD", write="CE & WRE", data="DI", out="DO", reset="RESET",
                 mode="CE & (~WRE | WRITE_MODE == 2)")  # fmt: skip
    return _start(name, byte, ports, parameters, known) + port + "endmodule\n"


def _simple_dual(byte: int) -> str:
    name, width = {8: "SDPB", 9: "SDPX9B"}[byte], 4 * byte
    ports = f"output reg [{width - 1}:0] DO, input [{width - 1}:0] DI, input [2:0] BLKSELA, BLKSELB,\n"
    ports += "    input [13:0] ADA, ADB, input CLKA, CEA, RESETA, CLKB, CEB, RESETB, OCE"
    parameters = f"READ_MODE = 0, BIT_WIDTH_0 = {width}, BIT_WIDTH_1 = {width}, BLK_SEL_0 = 0, BLK_SEL_1 = 0"
    known = "READ_MODE == 0 && BLKSELA === BLK_SEL_0 && BLKSELB === BLK_SEL_1"
    body = _port(byte, "BIT_WIDTH_0", "CLKA", "ADA", write="CEA", data="DI", out="", reset="", mode="")
    body += _port(byte, "BIT_WIDTH_1", "CLKB", "ADB", write="", data="", out="DO", reset="RESETB", mode="CEB")
    return _start(name, byte, ports, parameters, known) + body + "endmodule\n"


def _dual(byte: int) -> str:
    name, width = {8: "DPB", 9: "DPX9B"}[byte], 2 * byte
    ports = f"output reg [{width - 1}:0] DOA, DOB, input [{width - 1}:0] DIA, DIB,\n"
    ports += "    input [2:0] BLKSELA, BLKSELB, input [13:0] ADA, ADB,\n"
    ports += "    input CLKA, CEA, WREA, OCEA, RESETA, CLKB, CEB, WREB, OCEB, RESETB"
    each = [f"READ_MODE{k} = 0, WRITE_MODE{k} = 0, BIT_WIDTH_{k} = {width}, BLK_SEL_{k} = 0" for k in range(2)]
    known = " && ".join(f"READ_MODE{k} == 0 && BLKSEL{p} === BLK_SEL_{k}" for k, p in enumerate("AB"))
    body = "".join(
        _port(byte, f"BIT_WIDTH_{k}", f"CLK{p}", f"AD{p}", write=f"CE{p} & WRE{p}", data=f"DI{p}", out=f"DO{p}",
              reset=f"RESET{p}", mode=f"CE{p} & (~WRE{p} | WRITE_MODE{k} == 2)",
              through=f"CE{p} & WRE{p} & WRITE_MODE{k} == 1")
        for k, p in enumerate("AB")
    )  # fmt: skip
    return _start(name, byte, ports, ", ".join(each), known, "DOA, DOB") + body + "endmodule\n"

