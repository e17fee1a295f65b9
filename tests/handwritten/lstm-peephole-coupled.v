// i = sigma(a_i), g = phi(a_g); c' = (1 - i) c + i g.
module memory #(
    parameter SIGMA = "hard_sigmoid", PHI = "hard_tanh", CLIP = 0,
    W_acc_i = 8, F_acc_i = 0, W_acc_g = 8, F_acc_g = 0, W_a_i = 8, F_a_i = 0, S_a_i = 1,
    W_a_g = 8, F_a_g = 0, S_a_g = 1, W_i = 8, F_i = 0, S_i = 1, W_g = 8, F_g = 0, S_g = 1, W_c = 8, F_c = 0, S_c = 1
) (
    input signed [W_acc_i-1:0] acc_i, input signed [W_acc_g-1:0] acc_g, input [W_c-1:0] old_c,
    output [W_a_i-1:0] a_i, output [W_a_g-1:0] a_g, output [W_i-1:0] i, output [W_g-1:0] g, output [W_c-1:0] c
);
  wire signed [W_a_i:0] pre_i;
  wire signed [W_a_g:0] pre_g;
  store #(.WI(W_acc_i), .FI(F_acc_i), .W(W_a_i), .F(F_a_i), .S(S_a_i)) store_i (acc_i, pre_i);
  store #(.WI(W_acc_g), .FI(F_acc_g), .W(W_a_g), .F(F_a_g), .S(S_a_g)) store_g (acc_g, pre_g);

  wire signed [W_i:0] gate_i;
  wire signed [W_g:0] gate_g;
  activate #(.KIND(SIGMA), .WI(W_a_i + 1), .FI(F_a_i), .W(W_i), .F(F_i), .S(S_i)) activate_i (pre_i, gate_i);
  activate #(.KIND(PHI), .WI(W_a_g + 1), .FI(F_a_g), .W(W_g), .F(F_g), .S(S_g)) activate_g (pre_g, gate_g);

  wire signed [W_c:0] before, after;
  value #(.W(W_c), .S(S_c)) value_c (old_c, before);
  mix #(.W_z(W_i), .F_z(F_i), .W_a(W_c), .F_a(F_c), .W_b(W_g), .F_b(F_g), .W(W_c), .F(F_c), .S(S_c), .CLIP(CLIP))
      mix_c (gate_i, before, gate_g, after);

  assign a_i = pre_i[W_a_i-1:0];
  assign a_g = pre_g[W_a_g-1:0];
  assign i = gate_i[W_i-1:0];
  assign g = gate_g[W_g-1:0];
  assign c = after[W_c-1:0];
endmodule

// o = sigma(a_o), whose product read the new c; t = psi(c); h' = o t.
module output_gate #(
    parameter SIGMA = "hard_sigmoid", PSI = "hard_tanh",
    W_acc_o = 8, F_acc_o = 0, W_a_o = 8, F_a_o = 0, S_a_o = 1, W_o = 8, F_o = 0, S_o = 1,
    W_c = 8, F_c = 0, S_c = 1, W_t = 8, F_t = 0, S_t = 1, W_h = 8, F_h = 0, S_h = 1
) (
    input signed [W_acc_o-1:0] acc_o, input [W_c-1:0] old_c,
    output [W_a_o-1:0] a_o, output [W_o-1:0] o, output [W_t-1:0] t, output [W_h-1:0] h
);
  wire signed [W_a_o:0] pre_o;
  wire signed [W_o:0] gate_o;
  store #(.WI(W_acc_o), .FI(F_acc_o), .W(W_a_o), .F(F_a_o), .S(S_a_o)) store_o (acc_o, pre_o);
  activate #(.KIND(SIGMA), .WI(W_a_o + 1), .FI(F_a_o), .W(W_o), .F(F_o), .S(S_o)) activate_o (pre_o, gate_o);

  wire signed [W_c:0] state;
  wire signed [W_t:0] shown;
  value #(.W(W_c), .S(S_c)) value_c (old_c, state);
  activate #(.KIND(PSI), .WI(W_c + 1), .FI(F_c), .W(W_t), .F(F_t), .S(S_t)) activate_t (state, shown);
  wire signed [W_o+W_t+1:0] product = gate_o * shown;
  wire signed [W_h:0] new_h;
  store #(.WI(W_o + W_t + 2), .FI(F_o + F_t), .W(W_h), .F(F_h), .S(S_h)) store_h (product, new_h);

  assign a_o = pre_o[W_a_o-1:0];
  assign o = gate_o[W_o-1:0];
  assign t = shown[W_t-1:0];
  assign h = new_h[W_h-1:0];
endmodule
