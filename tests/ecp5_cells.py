"""Verilog models of ECP5's MULT18X18D and DP16KD, which Yosys has no models of: what our netlists use of them.

Written after Lattice TN1267 and TN1264; a parameter or width outside of that ends the simulation.
"""


def models() -> str:
    """Both modules."""
    return _multiplier() + _memory()


def _ports(prefix: str, count: int) -> str:
    """The concatenation of single-bit ports, the highest first."""
    return "{" + ", ".join(f"{prefix}{k}" for k in reversed(range(count))) + "}"


def _multiplier() -> str:
    inputs = [f"{side}{k}" for side in "ABC" for k in range(18)]
    inputs += ["SIGNEDA", "SIGNEDB", "SOURCEA", "SOURCEB", "CLK0", "CE0", "RST0"]
    outputs = [f"P{k}" for k in range(36)]
    registers = ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT")
    parameters = ", ".join(f'REG_{r}_{pin} = "{v}"' for r in registers for pin, v in _DEFAULTS)
    return f"""
module MULT18X18D #(parameter {parameters})
    ({", ".join(f"input {p}" for p in inputs)}, {", ".join(f"output {p}" for p in outputs)});
  wire signed [18:0] a = {{SIGNEDA & A17, {_ports("A", 18)}}};
  wire signed [18:0] b = {{SIGNEDB & B17, {_ports("B", 18)}}};
  reg signed [18:0] ra = 0, rb = 0;
  reg [35:0] rm = 0, ro = 0;
  wire signed [18:0] fa = REG_INPUTA_CLK == "NONE" ? a : ra;
  wire signed [18:0] fb = REG_INPUTB_CLK == "NONE" ? b : rb;
  wire signed [37:0] product = fa * fb;
  wire [35:0] middle = REG_PIPELINE_CLK == "NONE" ? product[35:0] : rm;
  always @(posedge CLK0) if (CE0) begin ra <= a; rb <= b; rm <= product[35:0]; ro <= middle; end
  assign {_ports("P", 36)} = REG_OUTPUT_CLK == "NONE" ? middle : ro;
endmodule
"""


_DEFAULTS = (("CLK", "NONE"), ("CE", "CE0"), ("RST", "RST0"))


def _memory() -> str:
    inputs = [f"{name}{port}" for port in "AB" for name in ("CE", "OCE", "CLK", "WE", "RST")]
    for port in "AB":
        inputs += [f"CS{port}{k}" for k in range(3)] + [f"AD{port}{k}" for k in range(14)]
        inputs += [f"DI{port}{k}" for k in range(18)]
    outputs = [f"DO{port}{k}" for port in "AB" for k in range(18)]
    texts = ["GSR", "RESETMODE", "ASYNC_RESET_RELEASE"]
    texts += [f"{name}_{p}" for name in ("REGMODE", "CSDECODE", "WRITEMODE") for p in "AB"]
    texts += ["CLKAMUX", "CLKBMUX"]
    parameters = [f'{name} = ""' for name in texts] + ["DATA_WIDTH_A = 18", "DATA_WIDTH_B = 18"]
    parameters += [f"INITVAL_{k:02X} = 320'd0" for k in range(64)]
    init = "\n".join(
        f"    for (k = 0; k < 16; k = k + 1) words[{16 * n} + k] = INITVAL_{n:02X}[20 * k +: 18];" for n in range(64)
    )
    # Written at A only, as the memories that Yosys infers for one read and one write port are.
    return f"""
module DP16KD #(parameter {", ".join(parameters)})
    ({", ".join(f"input {p}" for p in inputs)}, {", ".join(f"output {p}" for p in outputs)});
  reg [17:0] words [0:1023];
  integer k;
  initial begin
{init}
    if (DATA_WIDTH_B < 9 || WEB) begin $display("FAIL: unknown DP16KD"); $finish; end
  end
  always @(posedge CLKA) if (DATA_WIDTH_A < 9 && CEA & WEA) begin $display("FAIL: unknown DP16KD"); $finish; end
  wire [13:0] ada = {_ports("ADA", 14)}, adb = {_ports("ADB", 14)};
  wire [35:0] di = {{{_ports("DIB", 18)}, {_ports("DIA", 18)}}};
  // Port B at 36 bits reads through the outputs of both ports.
  reg [17:0] read_a = 0, held_a = 0, read_b = 0, held_b = 0, low = 0, held_low = 0;
  always @(posedge CLKA) if (CEA & WEA) begin
    if (DATA_WIDTH_A == 36) begin
      if (ada[0]) words[{{ada[13:5], 1'b0}}][8:0] <= di[8:0];
      if (ada[1]) words[{{ada[13:5], 1'b0}}][17:9] <= di[17:9];
      if (ada[2]) words[{{ada[13:5], 1'b1}}][8:0] <= di[26:18];
      if (ada[3]) words[{{ada[13:5], 1'b1}}][17:9] <= di[35:27];
    end else if (DATA_WIDTH_A == 18) begin
      if (ada[0]) words[ada[13:4]][8:0] <= di[8:0];
      if (ada[1]) words[ada[13:4]][17:9] <= di[17:9];
    end else words[ada[13:4]][9 * ada[3] +: 9] <= di[8:0];
  end
  always @(posedge CLKA) begin
    // Words narrower than a byte leave its ninth bit out.
    if (CEA) read_a <= DATA_WIDTH_A == 1 ? words[ada[13:4]][9 * ada[3] + ada[2:0] +: 1]
        : DATA_WIDTH_A == 2 ? words[ada[13:4]][9 * ada[3] + 2 * ada[2:1] +: 2]
        : DATA_WIDTH_A == 4 ? words[ada[13:4]][9 * ada[3] + 4 * ada[2] +: 4]
        : DATA_WIDTH_A == 9 ? words[ada[13:4]][9 * ada[3] +: 9] : words[ada[13:4]];
    if (OCEA) held_a <= read_a;
  end
  always @(posedge CLKB) begin
    if (CEB) begin
      low <= words[{{adb[13:5], 1'b0}}];
      if (DATA_WIDTH_B == 36) read_b <= words[{{adb[13:5], 1'b1}}];
      else read_b <= DATA_WIDTH_B == 9 ? words[adb[13:4]][9 * adb[3] +: 9] : words[adb[13:4]];
    end
    if (OCEB) begin held_b <= read_b; held_low <= low; end
  end
  wire [17:0] shown_low = REGMODE_B == "OUTREG" ? held_low : low;
  wire [17:0] shown_a = REGMODE_A == "OUTREG" ? held_a : read_a;
  assign {_ports("DOA", 18)} = DATA_WIDTH_B == 36 ? shown_low : shown_a;
  assign {_ports("DOB", 18)} = REGMODE_B == "OUTREG" ? held_b : read_b;
endmodule
"""
