// Written by hand from the definitions, and from nothing in hwrnn: what tests/test_equivalence.py proves the element-wise
// paths against. A value is an integer that means raw * 2**-F; W is its bits, S whether it is signed. Inside, every value
// is signed and has a bit more, so that an unsigned one stays what it is.

// Rounds half up to F bits of fraction, then saturates.
module store #(parameter WI = 8, FI = 0, W = 8, F = 0, S = 1) (input signed [WI-1:0] x, output signed [W:0] y);
  localparam DROP = FI > F ? FI - F : 0;
  localparam GROW = F > FI ? F - FI : 0;
  localparam WW = (WI + GROW > W ? WI + GROW : W) + 2;
  localparam signed [WW-1:0] HIGH = S ? (1 << (W - 1)) - 1 : (1 << W) - 1;
  localparam signed [WW-1:0] LOW = S ? -(1 << (W - 1)) : 0;
  localparam signed [WW-1:0] HALF = DROP ? 1 << (DROP - 1) : 0;
  wire signed [WW-1:0] wide = x;
  wire signed [WW-1:0] grown = wide <<< GROW;
  wire signed [WW-1:0] raised = grown + HALF;
  wire signed [WW-1:0] rounded = raised >>> DROP;
  wire signed [WW-1:0] clipped = rounded > HIGH ? HIGH : rounded < LOW ? LOW : rounded;
  assign y = {S ? clipped[W-1] : 1'b0, clipped[W-1:0]};  // a value, as below
endmodule

// A stored value with its sign, whatever its format.
module value #(parameter W = 8, S = 1) (input [W-1:0] raw, output signed [W:0] y);
  assign y = {S ? raw[W-1] : 1'b0, raw};
endmodule

// A nonlinearity of an exact value, stored.
module activate #(parameter KIND = "none", WI = 8, FI = 0, W = 8, F = 0, S = 1)
                 (input signed [WI-1:0] x, output signed [W:0] y);
  localparam WW = WI + FI + 6;
  localparam signed [WW-1:0] ONE = 1 << FI;  // at the fraction of x
  wire signed [WW-1:0] wide = x;
  generate
    if (KIND == "identity") begin
      store #(.WI(WI), .FI(FI), .W(W), .F(F), .S(S)) store (x, y);
    end else if (KIND == "hard_tanh") begin
      // max(-1, min(1, x))
      wire signed [WW-1:0] f = wide > ONE ? ONE : wide < -ONE ? -ONE : wide;
      store #(.WI(WW), .FI(FI), .W(W), .F(F), .S(S)) store (f, y);
    end else if (KIND == "relu") begin
      // max(0, x)
      wire signed [WW-1:0] f = wide < 0 ? 0 : wide;
      store #(.WI(WW), .FI(FI), .W(W), .F(F), .S(S)) store (f, y);
    end else if (KIND == "relu1") begin
      // max(0, min(1, x))
      wire signed [WW-1:0] f = wide > ONE ? ONE : wide < 0 ? 0 : wide;
      store #(.WI(WW), .FI(FI), .W(W), .F(F), .S(S)) store (f, y);
    end else if (KIND == "hard_sigmoid") begin
      // max(0, min(1, x/4 + 1/2)), in quarters of x's step
      wire signed [WW-1:0] line = wide + 2 * ONE;
      wire signed [WW-1:0] f = line > 4 * ONE ? 4 * ONE : line < 0 ? 0 : line;
      store #(.WI(WW), .FI(FI + 2), .W(W), .F(F), .S(S)) store (f, y);
    end else if (KIND == "hard_sigmoid_3_16") begin
      // max(0, min(1, 3x/16 + 1/2)), in sixteenths of x's step
      wire signed [WW-1:0] line = 3 * wide + 8 * ONE;
      wire signed [WW-1:0] f = line > 16 * ONE ? 16 * ONE : line < 0 ? 0 : line;
      store #(.WI(WW), .FI(FI + 4), .W(W), .F(F), .S(S)) store (f, y);
    end else begin
      no_such_nonlinearity nothing ();
    end
  endgenerate
endmodule

// Limits an exact value to -CLIP..CLIP; CLIP 0 does not.
module limit #(parameter W = 8, F = 0, CLIP = 0) (input signed [W-1:0] x, output signed [W-1:0] y);
  localparam signed [W-1:0] BOUND = CLIP << F;
  assign y = CLIP == 0 ? x : x > BOUND ? BOUND : x < -BOUND ? -BOUND : x;
endmodule

// (1 - z) a + z b, stored: as the textbook has it, with two products.
module mix #(
    parameter W_z = 8, F_z = 0, W_a = 8, F_a = 0, W_b = 8, F_b = 0, W = 8, F = 0, S = 1, CLIP = 0
) (input signed [W_z:0] z, input signed [W_a:0] a, input signed [W_b:0] b, output signed [W:0] y);
  localparam F_SUM = F_z + (F_a > F_b ? F_a : F_b);
  localparam W_SUM = 2 * W_z + W_a + W_b + F_z + F_a + F_b + 6;
  wire signed [W_z+F_z+2:0] wide_z = z;
  wire signed [W_z+F_z+2:0] rest = (1 << F_z) - wide_z;
  wire signed [W_SUM-1:0] of_a = rest * a;
  wire signed [W_SUM-1:0] of_b = z * b;
  wire signed [W_SUM-1:0] exact = (of_a <<< (F_SUM - F_z - F_a)) + (of_b <<< (F_SUM - F_z - F_b));
  wire signed [W_SUM-1:0] limited;
  limit #(.W(W_SUM), .F(F_SUM), .CLIP(CLIP)) limit (exact, limited);
  store #(.WI(W_SUM), .FI(F_SUM), .W(W), .F(F), .S(S)) store (limited, y);
endmodule
